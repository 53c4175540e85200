"""What lesson 08's tables of spectra, angles and statements say, in words."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from serial_lora_course.labs.methods import METHOD_TITLES


def read_sizes(sizes: pd.DataFrame) -> str:
    """The rank and the size of what each method changed.

    Args:
        sizes: a row a change, with ``method`` in words, ``rank`` and ``size``, |dW| / |W|.
    """
    means = sizes.groupby("method", sort=False)["size"].mean()
    low, high = sizes["rank"].min(), sizes["rank"].max()
    ranks = f"rank {low}" if low == high else f"a rank from {low} to {high}"
    said = " and ".join(f"{mean:.1%} ({method})" for method, mean in means.items())
    return f"Every change has {ranks}. Its size is {said} of the size of W."


def read_shifts(spectra: Mapping[str, pd.DataFrame]) -> str:
    """How far each method moves W's singular values, in percent of them.

    Args:
        spectra: method -> every singular value, as
            :func:`serial_lora_course.labs.change_tables.spectra_frame` gives them.
    """
    said = []
    for method, frame in spectra.items():
        places = ["tower", "block", "projection", "index"]
        values = frame.set_index(["matrix", *places])["value"]
        shift = 100 * (values.loc["W + dW"] / values.loc["W"] - 1)
        said.append(
            f"{METHOD_TITLES[method]} moves a singular value of W by {shift.min():+.1f}% to {shift.max():+.1f}%, "
            f"and by {shift.abs().mean():.1f}% on average"
        )
    return f"{'; '.join(said)} (all blocks of both towers)."


def read_within_blocks(found: Mapping[str, pd.DataFrame]) -> str:
    """How much q's directions overlap with k's and v's of the same block, method by method.

    Args:
        found: method in words -> as :func:`serial_lora_course.labs.directions.within_blocks` gives it.
    """
    sides = [
        f"where they {side.removesuffix('s')}, "
        + " and ".join(f"{frame.loc[side, 'overlap']} ({name})" for name, frame in found.items())
        for side in ("reads", "writes")
    ]
    chance = next(iter(found.values()))["by chance"].iloc[0]
    return f"The overlap of q with k and v is {'; '.join(sides)}. By chance it would be {chance}."


def read_claims(claims: pd.DataFrame, rank: int) -> str:
    """How often Serial LoRA is in between, under both readings, in one run."""
    between, inside = claims["between"], claims["change_between"]
    return (
        f"In this one run Serial LoRA's W + dW is between W's and LoRA's at {between.mean():.0%} of the indices "
        f"({between.min():.0%} to {between.max():.0%} in a single block and projection). Its dW is above LoRA's "
        f"and below W at {inside.mean():.0%} of the first {rank} indices ({inside.min():.0%} to "
        f"{inside.max():.0%}). LoRA's dW is {claims['size_lora'].mean():.1%} of W's size, Serial LoRA's "
        f"{claims['size_serial'].mean():.1%}."
    )


def read_scales(scales: pd.DataFrame) -> str:
    """How far a factor alone moves the positions; a row a factor."""
    between, inside = scales["between"], scales["change_between"]
    return (
        f"With the factor alone, “change between” goes from {inside.min():.0%} to {inside.max():.0%} and "
        f"“between” from {between.min():.0%} to {between.max():.0%}; the effective rank does not move."
    )


def read_effective(effective: pd.DataFrame, random_rank: float, rank: int, width: int) -> str:
    """How many directions each method uses, by two measures of the spectrum.

    Args:
        effective: rows of :func:`serial_lora_course.labs.change_tables.spectra_table`, with ``method``.
        random_rank: the effective rank of a random pair.
    """
    means = effective.groupby("method")[["effective_rank", "stable_rank"]].mean()
    lora, serial = means.loc["lora"], means.loc["serial_lora"]
    whole = effective[["effective_rank_before", "effective_rank_after"]].mean()
    same = (serial - lora).prod() > 0
    order = (
        "the same order"
        if same
        else "the other order: it depends on which directions are asked about"
    )
    return (
        f"Of the {rank} directions of a pair LoRA's dW uses {lora['effective_rank']:.1f} effectively and Serial "
        f"LoRA's {serial['effective_rank']:.1f}; a random pair has {random_rank:.1f}. The **stable rank**, the "
        "sum of the squares over the largest square, which hardly sees small values, is "
        f"{lora['stable_rank']:.1f} and {serial['stable_rank']:.1f}: {order}. The effective rank of W itself "
        f"is {whole.iloc[0]:.1f} of {width}, and with either dW {whole.iloc[1]:.1f}."
    )


def read_along(along: Mapping[str, pd.DataFrame], rank: int, width: int, passed: float) -> str:
    """Which share each method writes along W's strongest outputs.

    Args:
        along: method in words -> as :func:`serial_lora_course.labs.directions.along_frame`.
        passed: what the passage of a random pair through W gives.
    """
    said = " and ".join(f"{frame['writes'].mean():.0%} ({name})" for name, frame in along.items())
    return (
        f"Along the {rank} strongest outputs of W lies {said} of what is written. By chance it would be "
        f"{rank / width:.0%}, and {passed:.0%} for a random B that is sent through W."
    )


def read_overlaps(means: pd.DataFrame, across: str, chance: float) -> str:
    """What two methods have in common beside what each has with itself (lesson 08).

    Args:
        means: mean overlap; a row a comparison, LoRA's seeds before Serial LoRA's, a column a side.
        across: the row that compares the two methods.
        chance: the overlap of random directions.
    """
    lines = []
    for side, between in means.loc[across].items():
        own = means.drop(across)[side]
        if between < 0.75 * own.min():
            reading = "the methods have clearly less in common than either has with itself."
        elif between < own.min():
            reading = "the methods have a little less in common than either has with itself."
        elif between < 1.25 * own.max():
            reading = "the methods have about as much in common as a method with itself."
        else:
            reading = "the methods agree more than two seeds do."
        lines.append(
            f"- where it {side}: {between:.2f} between the methods, {own.iloc[0]:.2f} between two "
            f"seeds of LoRA, {own.iloc[1]:.2f} between two seeds of Serial LoRA, {chance:.2f} by "
            f"chance: {reading}"
        )
    return "\n".join(lines)


def read_statements(verdicts: pd.DataFrame, results: pd.DataFrame) -> str:
    """How the paper's statements about singular values fare on shipped records (lesson 08).

    Args:
        verdicts: columns ``statement`` (the first two are about the position) and ``verdict``.
        results: a row a comparison of a Serial LoRA with its LoRA.
    """
    counted = verdicts.groupby("statement", sort=False)["verdict"].value_counts()
    counted = counted.unstack(fill_value=0)
    counted = counted.reindex(columns=["holds", "fails", "not decided"], fill_value=0)
    lines = [
        f"- **{statement}**: holds in {row['holds']} of {row.sum()} comparisons, fails in "
        f"{row['fails']}, not decided in {row['not decided']}."
        for statement, row in counted.iterrows()
    ]
    position = counted.iloc[:2]
    if position["holds"].sum() == 0:
        found = "not found here as a property of Serial LoRA, under either reading"
    elif position["holds"].sum() < position.sum().sum():
        found = "found in some of the comparisons and not in others"
    else:
        found = "found in all comparisons"
    by_method = results.groupby(["lab", "method"], sort=False)
    sizes = by_method[["size_lora", "size_serial"]].mean()
    ratios = sizes["size_serial"] / sizes["size_lora"]
    means, near = results.mean(numeric_only=True), by_method["nearer"].mean()
    towards_paper = near.min() > 0.5 and ratios.min() > 1
    return (
        f"Of {counted.sum().sum()} tests of the paper's statements, {counted['holds'].sum()} hold on "
        "these models.\n\n" + "\n".join(lines) + "\n\n"
        f"The “intermediate positioning” is {found}. The effective rank of Serial "
        f"LoRA's dW is {means['effective_rank_serial']:.1f} on average, that of LoRA's "
        f"{means['effective_rank_lora']:.1f}. Serial LoRA's dW is {ratios.min():.2f} to "
        f"{ratios.max():.2f} times as large as its LoRA's, and you saw above that a factor alone "
        f"moves the positions. Of what Serial LoRA writes, {means['along_serial']:.0%} is along W's "
        f"strongest outputs; of LoRA's, {means['along_lora']:.0%}. "
        + ("One thing does go the paper's way: " if towards_paper else "And on whichever side: ")
        + f"at {near.min():.0%} to {near.max():.0%} of the indices Serial LoRA's W + dW is nearer to "
        "W's value than LoRA's (by chance: 50%)"
        + (", although its dW is the larger one." if ratios.min() > 1 else ".")
    )
