"""What lesson 07's tables of losses, streams, FID and CLIP-Score say, in words."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from serial_lora_course.claims.paper import paper_facts, paper_table
from serial_lora_course.labs.frames import as_text
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.labs.records import Record

OFFICIAL_SHIFT, OFFICIAL_SCALE = 0.0609, 1.5305  # in the config of SD3 medium's autoencoder
INCEPTION = 2048  # features
PICTURES = {
    "Barbie": 315,
    "Cyberpunk": 439,
    "Art Nouveau": 1500,
    "Impressionism": 1500,
}  # the paper's

LABELS = {name: METHOD_TITLES[name] for name in ("lora", "serial_lora")}
COLUMNS = {"fid": "FID", "kid": "KID", "clip_score": "CLIP-Score", "style_share": "in the style"}
FORMATS = {"FID": "{:.1f}", "KID": "{:.3f}", "CLIP-Score": "{:.3f}", "in the style": "{:.0%}"}
"""What a table of drawings shows, and how its numbers are written."""


def read_trips(trips: pd.DataFrame, moved: float) -> str:
    """What forgetting the shift or the scale in both directions does to the loss.

    Args:
        trips: a row a way, the right one first.
        moved: by how much of their spread the shift moves the latents.
    """
    rise = trips["loss"] / trips["loss"].iloc[0] - 1
    error = trips["round trip"]
    return (
        f"The loss changes by {rise.iloc[1]:+.0%} without the shift and by {rise.iloc[2]:+.0%} without the scale, "
        f"and the round trip does not see it ({error.iloc[0]:.1f}, {error.iloc[1]:.1f} and {error.iloc[2]:.1f} grey levels). "
        f"The shift moves latents by {moved:.2f} of their spread here, and by "
        f"{OFFICIAL_SHIFT * OFFICIAL_SCALE:.2f} in SD3 medium."
    )


def read_levels(by_level: pd.DataFrame) -> str:
    """Which shares of both losses come from the levels nearest to the picture and to noise."""
    first, last = (by_level.iloc[place] for place in (0, -1))
    return (
        f"Noise levels from {by_level.index[0]} give {first['plain']:.0%} of the plain loss and "
        f"{first['σ² weighted']:.0%} of the weighted one; levels from {by_level.index[-1]} give {last['plain']:.0%} "
        f"and {last['σ² weighted']:.0%}."
    )


def read_captions(mixed: pd.DataFrame) -> str:
    """How much larger the loss is with wrong captions; known pictures first, then the new style."""
    known, new = (mixed.iloc[row] for row in (0, 1))
    return (
        f"With another picture's caption the loss is {1 + known['difference']:.1f} times as large on pictures that "
        f"the model knows, and {1 + new['difference']:.1f} times on the new style."
    )


def read_softmax(table: pd.DataFrame) -> str:
    """What a right and a wrong prompt score; a row each, the right one first."""
    own, other = (table.iloc[row] for row in (0, 1))
    return (
        f"CLIP-Score is {own['CLIP-Score']:.2f} with its own prompt and {other['CLIP-Score']:.2f} with another's; "
        f"the softmax is {own['softmax over one']:.2f} and {other['softmax over one']:.2f}."
    )


def read_deceived(table: pd.DataFrame) -> str:
    """What training pictures and one picture score, beside the model; a row an answer."""
    training, model = table.loc["training pictures"], table.loc["SD3, not adapted"]
    return (
        f"Training pictures, returned whatever the prompt, have an FID of {training['FID']:.1f} where the model has "
        f"{model['FID']:.1f}, and a CLIP-Score of {training['CLIP-Score']:.2f} where it has "
        f"{model['CLIP-Score']:.2f}. One picture, drawn every time, is in the style in "
        f"{table.loc['one picture', 'in the style']:.0%} of the cases, with an FID of "
        f"{table.loc['one picture', 'FID']:.1f}."
    )


def read_memory(memory: pd.DataFrame) -> str:
    """What caching and checkpointing save, at the most pixels, without quantized weights."""
    rows = memory[(memory["pixels"] == memory["pixels"].max()) & (memory["quantized"] == "")]
    total = rows.set_index(["cached", "checkpointing"])["total"]
    return (
        f"At {memory['pixels'].max():,} pixels a step takes about {total[False, False]:.1f} GiB with all parts loaded, "
        f"{total[True, False]:.1f} with latents and prompts cached, and {total[True, True]:.1f} with checkpointing "
        "too."
    )


def read_streams(costs: pd.DataFrame) -> str:
    """Which stream the paper's printed sizes come nearest to.

    Args:
        costs: as :func:`serial_lora_course.labs.sd3_probes.stream_costs` gives them.
    """
    facts = paper_facts()
    counts = costs[costs["scale"] == "paper"].set_index("stream")["LoRA"]
    off = float(facts["sd3_lora_printed"]) * 1e6 / counts - 1
    nearest = off.abs().idxmin()
    told = ", ".join(f"{value:+.0%} ({stream})" for stream, value in off.items())
    return (
        f"The paper prints {facts['sd3_lora_printed']}M for LoRA and {facts['sd3_serial_printed']}M for Serial "
        f"LoRA. Against the exact counts of LoRA that is {told}. Nearest is the stream “{nearest}”, and even that "
        f"is {off[nearest]:+.1%} off."
    )


def read_halves(by_count: pd.DataFrame, dimensions: int) -> str:
    """How FID falls with the number of pictures, without any model."""
    first, last = by_count.index[0], by_count.index[-1]
    return (
        f"From {first} to {last} pictures FID falls to {by_count['FID'].iloc[-1] / by_count['FID'].iloc[0]:.0%} of "
        f"what it was, and no model has become better: there is none. The features have {dimensions} dimensions. "
        f"Inception's have {INCEPTION:,}, so a covariance without gaps takes more pictures than that; the paper's "
        f"sets have {min(PICTURES.values()):,} to {max(PICTURES.values()):,}."
    )


def read_tuning(records: Mapping[str, Record], real_score: float) -> str:
    """What tuning with both methods did to FID, style and CLIP-Score.

    Args:
        records: of ``lora`` and ``serial_lora``.
        real_score: CLIP-Score of the style's own pictures.
    """
    serial, lora = (records[name].measures for name in ("serial_lora", "lora"))
    sizes, change = records["serial_lora"].sizes, serial["clip_score"] - serial["base_clip_score"]
    error = (serial["clip_error"] ** 2 + serial["base_clip_error"] ** 2) ** 0.5
    return (
        f"{sizes['steps']} steps on {sizes['training_pictures']} pictures bring FID to the style from "
        f"{serial['base_fid']:.1f} to {serial['fid']:.1f} with Serial LoRA and to {lora['fid']:.1f} with LoRA. The "
        f"classifier takes {serial['style_share']:.0%} of Serial LoRA's drawings for the style, "
        f"{lora['style_share']:.0%} of LoRA's, and took {serial['base_style_share']:.0%} before. Serial LoRA's "
        f"CLIP-Score goes from {serial['base_clip_score']:.3f} to {serial['clip_score']:.3f} (standard error of "
        f"the change {error:.3f}); the style's own pictures have {real_score:.3f}. "
        + _score_reading(change, error, serial["clip_score"] - real_score)
    )


def _score_reading(change: float, error: float, above_real: float) -> str:
    if abs(change) <= 2 * error:
        return "So no change of CLIP-Score is shown."
    if change > 0:
        return "The prompts are followed more closely, as far as this CLIP can see."
    if above_real > 0:
        return (
            "A fall, but not below the real pictures: this CLIP reads the style less well, so its score cannot "
            "distinguish style from neglect of the prompt."
        )
    return "A fall, and below the real pictures: the prompts are followed less."


def by_style(results: pd.DataFrame) -> pd.DataFrame:
    """Each style with all training pictures, before and after Serial LoRA, and real pictures of it."""
    rows = results[
        (results["amount"] == results["amount"].max()) & (results["method"] == "serial_lora")
    ]
    table = rows.groupby("dataset", sort=False).mean(numeric_only=True)
    gained, possible = (table["base_fid"] - table[name] for name in ("fid", "real_fid"))
    return table.assign(way=gained / possible)


STYLE_COLUMNS = {
    "base_fid": ("FID before", "{:.1f}"),
    "fid": ("FID after", "{:.1f}"),
    "real_fid": ("FID of real pictures", "{:.1f}"),
    "way": ("of the way", "{:.0%}"),
    "base_style_share": ("in style before", "{:.0%}"),
    "style_share": ("in style after", "{:.0%}"),
    "base_clip_score": ("CLIP-Score before", "{:.3f}"),
    "clip_score": ("CLIP-Score after", "{:.3f}"),
}


def styles_shown(table: pd.DataFrame) -> pd.DataFrame:
    """That table as a reader wants it."""
    titles, formats = ({name: pair[i] for name, pair in STYLE_COLUMNS.items()} for i in (0, 1))
    shown = as_text(table, formats)[list(formats)].rename(columns=titles)
    return shown.rename_axis("style").reset_index()


def turned(results: pd.DataFrame) -> pd.DataFrame:
    """The runs with the sign of FID and KID turned, so that more is better everywhere."""
    return results.assign(fid=-results["fid"], kid=-results["kid"])


def read_table_ii(printed: pd.DataFrame) -> str:
    """How far data and method move the printed FID, and what the printed CLIP-Scores can be."""
    facts = paper_facts()
    fid, clip = (printed.xs(name, axis=1, level="metric") for name in ("fid", "clip_score"))
    low, high = clip.min().min(), clip.max().max()
    fall = fid.loc["20%"].mean().mean() - fid.loc["100%"].mean().mean()
    between = (fid.groupby(level="amount").max() - fid.groupby(level="amount").min()).mean().mean()
    serial, lora = (fid.xs(name, level="method") for name in ("Serial LoRA", "LoRA"))
    return (
        f"- From 20% to 100% of the pictures FID falls by {fall:.0f} on average, for all methods alike. Between the "
        f"best and the worst method of a cell lie {between:.1f}. The amount of data moves FID {fall / between:.0f} "
        "times as far as the choice of method.\n"
        f"- Serial LoRA is behind LoRA in {facts['serial_behind_fid']} of {facts['fid_cells']} FID cells; on "
        f"average its FID minus LoRA's is {(serial - lora).mean().mean():+.2f}.\n"
        f"- CLIP-Scores lie between {low:.2f} and {high:.2f}. As 2.5 times a cosine that is {low / 2.5:.2f} to "
        f"{high / 2.5:.2f}, which is usual for CLIP ViT-B. A bare cosine would not be so high, and a softmax over "
        "one number would be 1 everywhere. The paper does not say which it is."
    )


def falls(results: pd.DataFrame) -> pd.DataFrame:
    """Mean FID in the paper, and mean FID and KID in the records, as shares of what they are at 20%."""
    fid = paper_table("Table II").xs("fid", axis=1, level="metric")
    ours = results.groupby("amount")[["fid", "kid"]].mean()
    ours.index = [f"{percent}%" for percent in ours.index]
    table = ours.rename(columns={"fid": "ours, FID", "kid": "ours, KID"})
    table.insert(0, "the paper, FID", fid.mean(axis=1).groupby(level="amount").mean())
    table = table.loc[["20%", "50%", "100%"]].rename_axis("of the training pictures")
    return table / table.iloc[0]


def read_falls(table: pd.DataFrame, by_count: pd.DataFrame) -> str:
    """How far FID falls with data, and with the number of pictures alone."""
    last = table.iloc[-1]
    alone = by_count["FID"].iloc[-1] / by_count["FID"].iloc[1]
    return (
        f"In the paper FID at 100% is {last.iloc[0]:.0%} of that at 20%. In our records, where drawings and real "
        f"pictures are as many everywhere, it is {last.iloc[1]:.0%}, and KID {last.iloc[2]:.0%}. For two halves of "
        f"*real* pictures, where FID is nothing but the error of few pictures, it goes to {alone:.0%} with four "
        "times as many."
    )
