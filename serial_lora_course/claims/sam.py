"""What lesson 06's tables of Dice say, in words."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from serial_lora_course.claims.methods import EQUAL_RANK
from serial_lora_course.claims.paper import paper_facts, paper_table
from serial_lora_course.labs.frames import paired_difference
from serial_lora_course.labs.records import Record


def read_measures(measures: pd.DataFrame) -> str:
    """One mask drawn surely and unsurely, and what the filled box reaches; a row an answer."""
    dice, loss = measures["Dice"], measures["DiceCE"]
    return (
        f"The same perfect mask has a DiceCE of {loss['the truth, sure of it']:.3f} where it is sure and of "
        f"{loss['the truth, unsure']:.3f} where it is not; no mask at all has {loss['nothing']:.3f}. The filled "
        f"box reaches a Dice of {dice['the box filled']:.3f}, SAM {dice['SAM, not adapted']:.3f}."
    )


def read_padding(errors: pd.DataFrame) -> str:
    """How wrong an adapter behind the padding makes tokens; a row an adapter."""
    error = errors["error, windows with padding"]
    return (
        f"Without a bias the two places differ by {error['without a bias']:.0e}. With one, tokens of the picture "
        f"are wrong by up to {error['with a bias']:.1f} in windows with padding, and in full windows by "
        f"{errors.loc['with a bias', 'error, full windows']:.0e}."
    )


def read_losses(table: pd.DataFrame) -> str:
    """What the sigmoid taken twice and hard masks do to the loss; a row a loss, in words."""
    right, twice, hard = (
        table.loc[name] for name in ("soft Dice + BCE", "sigmoid twice", "hard masks")
    )
    return (
        f"With the sigmoid twice the best possible answer costs {twice['perfect and sure']}, where it should cost "
        f"{right['perfect and sure']}, and the gradient of an undecided model is "
        f"{twice['gradient when undecided']} in place of {right['gradient when undecided']}. With hard masks it "
        f"has {hard['gradient when undecided']}."
    )


def read_masks(differ: Mapping[str, int], pixels: int, share: float) -> str:
    """How many pixels of the masks change when an adapter is loaded and merged.

    Args:
        differ: from the masks of the trained model.
        share: of the base's file that the adapter's has.
    """
    return (
        f"The adapter's file has {share:.1%} of the base's size. Of {pixels:,} pixels {differ['loaded']:,} differ "
        f"from the trained model's when it is loaded, {differ['merged']:,} when it is merged, and "
        f"{differ['not adapted']:,} without it."
    )


def read_dice_direction(printed: pd.DataFrame) -> str:
    """What the printed numbers of Table IV can be, by what they exclude."""
    change = printed.loc["100%"] - printed.loc["20%"]  # rows: methods, columns: data sets
    low, high = printed.min().min(), printed.max().max()
    return (
        f"The {printed.size} numbers lie between {low} and {high}.\n\n"
        f"- *The Dice coefficient?* With five times the data, {int((change < 0).sum().sum())} of {change.size} "
        f"become smaller. The masks would get worse with data, and the best of all would overlap by {high:.2f}. "
        "It is not that.\n"
        f"- *1 - Dice?* Then Dice would lie between {1 - high:.2f} and {1 - low:.2f}. Possible.\n"
        f"- *DiceCE?* Cross-entropy is never below 0, so Dice is *at least* {1 - high:.2f} to {1 - low:.2f}; by "
        "how much more cannot be said. Possible as well: Sam_LoRA, published code that the paper's settings "
        "resemble, prints its DiceCE under the name “Mean dice score”."
    )


def read_run(record: Record, gains: pd.Series) -> str:
    """How far one run raised Dice, and on how many pictures.

    Args:
        gains: in Dice, one for each test picture.
    """
    before, after, box = (record.measures[name] for name in ("base_dice", "dice", "box_dice"))
    side = "above" if after > box else "below"
    return (
        f"{record.sizes['steps']} steps on {record.sizes['training_pictures']} pictures bring mean Dice from "
        f"{before:.3f} to {after:.3f}, {side} filling the box ({box:.3f}). Of {len(gains)} test pictures, "
        f"{int((gains > 0).sum())} get better and {int((gains < 0).sum())} worse; the largest gain is "
        f"{gains.max():+.2f}, the largest loss {gains.min():+.2f}."
    )


def by_set(results: pd.DataFrame) -> pd.DataFrame:
    """Each set with all training pictures: the filled box, the unadapted model, Serial LoRA."""
    rows = results[
        (results["amount"] == results["amount"].max()) & (results["method"] == "serial_lora")
    ]
    names = {"box_dice": "box filled", "base_dice": "not adapted", "dice": "Serial LoRA"}
    table = rows.groupby("dataset", sort=False)[list(names)].mean().rename(columns=names)
    table["gain"] = table["Serial LoRA"] - table["not adapted"]
    table["above the box"] = table["Serial LoRA"] - table["box filled"]
    return table


def read_by_set(table: pd.DataFrame) -> str:
    """What Serial LoRA gains on the sets, and on how many the box is passed."""
    gain = table["gain"]
    before = int((table["not adapted"] > table["box filled"]).sum())
    return (
        f"Serial LoRA gains {gain.mean():+.3f} Dice on average, from {gain.min():+.3f} ({gain.idxmin()}) to "
        f"{gain.max():+.3f} ({gain.idxmax()}). It is above filling the box on "
        f"{int((table['above the box'] > 0).sum())} of {len(table)} sets; not adapted, the model is on {before}."
    )


def read_table_iv(printed: pd.DataFrame, results: pd.DataFrame) -> str:
    """How often more data make the printed masks worse, and those of the records."""
    facts, steps = paper_facts(), [("20%", "50%"), ("50%", "100%")]
    worse = sum(int((printed.loc[more] > printed.loc[less]).sum().sum()) for less, more in steps)
    cells = sum(printed.loc[more].size for _, more in steps)
    ours = results.groupby(["method", "dataset", "amount"])["dice"].mean().unstack("amount")
    return (
        f"Serial LoRA is behind LoRA in {facts['serial_behind_sam']} of {facts['sam_cells']} cells. In {worse} of "
        f"{cells} steps from one amount of data to the next the masks get *worse* with more data (LoRA on flood "
        f"goes {facts['flood_lora']}); in our records, means over seeds, in "
        f"{int((ours.diff(axis=1) < 0).sum().sum())} of {ours.shape[0] * (ours.shape[1] - 1)}."
    )


def beside_the_paper(results: pd.DataFrame) -> pd.DataFrame:
    """How much better Serial LoRA is than LoRA at equal rank, in the paper and in the records."""
    printed = paper_table("Table IV")
    serial, lora = (printed.xs(name, level="method") for name in ("Serial LoRA", "LoRA"))
    ours = paired_difference(results, *EQUAL_RANK, "dice").set_index("amount")
    table = (lora - serial).agg(["mean", "min", "max"], axis=1)  # lower is better there
    told = [int(amount.rstrip("%")) for amount in table.index]
    found = [
        f"{ours['mean'].get(n, float('nan')):+.4f} ± {ours['sem'].get(n, float('nan')):.4f}"
        for n in told
    ]
    return pd.DataFrame(
        {
            "the paper": table["mean"].map("{:+.3f}".format),
            "from ... to": [
                f"{row['min']:+.3f} ... {row['max']:+.3f}" for _, row in table.iterrows()
            ],
            "ours, tiny scale": found,
        }
    ).rename_axis("amount")


def read_beside(table: pd.DataFrame) -> str:
    """In how many rows of :func:`beside_the_paper` the two means have the same sign."""
    same = [
        paper.startswith(ours[0])
        for paper, ours in zip(table["the paper"], table["ours, tiny scale"], strict=True)
    ]
    return f"The paper's mean and ours have the same sign at {sum(same)} of {len(same)} amounts of data."
