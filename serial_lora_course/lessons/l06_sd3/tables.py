"""Tables of lesson 06: styles before and after, and how FID falls with the pictures."""

from __future__ import annotations

import pandas as pd

from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.paper_tables import paper_table

PAIRS = (
    ("serial_lora", "lora"),
    ("serial_lora", "lora_equal_budget"),
    ("serial_lora_plus", "lora_plus"),
    ("serial_lora_plus", "serial_lora"),
)
"""Which methods are compared, each on the same pictures as the other."""
LABELS = {name: METHOD_TITLES[name] for name in ("lora", "serial_lora")}
COLUMNS = {"fid": "FID", "kid": "KID", "clip_score": "CLIP-Score", "style_share": "in the style"}
FORMATS = {"FID": "{:.1f}", "KID": "{:.3f}", "CLIP-Score": "{:.3f}", "in the style": "{:.0%}"}
"""What a table of drawings shows, and how its numbers are written."""
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


def by_style(results: pd.DataFrame) -> pd.DataFrame:
    """Each style with all training pictures, before and after Serial LoRA, and real pictures of it."""
    serial = results["method"] == "serial_lora"
    most = results[serial & (results["amount"] == results["amount"].max())]
    means = most.groupby("dataset", sort=False).mean(numeric_only=True)
    gained, possible = (means["base_fid"] - means[name] for name in ("fid", "real_fid"))
    means["way"] = gained / possible
    shown = {title: means[name].map(form.format) for name, (title, form) in STYLE_COLUMNS.items()}
    return pd.DataFrame(shown).rename_axis("style").reset_index()


def falls(results: pd.DataFrame) -> pd.DataFrame:
    """Mean FID in the paper, and mean FID and KID in the records, as shares of what they are at 20%."""
    fid = paper_table("Table II").xs("fid", axis=1, level="metric")
    ours = results.groupby("amount")[["fid", "kid"]].mean()
    ours.index = [f"{percent}%" for percent in ours.index]
    table = ours.rename(columns={"fid": "ours, FID", "kid": "ours, KID"})
    table.insert(0, "the paper, FID", fid.mean(axis=1).groupby(level="amount").mean())
    table = table.loc[["20%", "50%", "100%"]].rename_axis("of the training pictures")
    return table / table.iloc[0]
