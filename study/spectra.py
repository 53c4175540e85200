"""The paper's Fig. 3, asked of small models: do Serial LoRA's singular values lie between the base's and LoRA's?

    python -m study spectra --out runs/study

For CLIP and SAM and three seeds, Serial LoRA and LoRA are trained at one rank, each with and without the
plus. The paper does not say whether its figure shows W + dW or dW, so both are asked. For each projection,
its name in front, a record has the share of singular values for which that holds, ``between`` for the merged
weights and ``change_between`` for the first r of dW, and the effective rank of both dW (e to the entropy of
the shares that its first r singular values have in their sum).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from serial_lora import eject, merge
from serial_lora.attention import find_sites
from serial_lora.sites import Site
from serial_lora_course.labs.grid import Source
from serial_lora_course.labs.lab import Lab, run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Kept, Record, read_records, run_key
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.measures.intervals import half_width

SHIPPED = Path(__file__).parent / "results" / "spectra.jsonl"
COMMAND = "python -m study spectra"
SEEDS = (1, 2, 3)
DATASETS = {"clip": "symbols", "sam": "food"}
AGAINST = {"serial_lora": "lora", "serial_lora_plus": "lora_plus"}


def compare(out: Path) -> pd.DataFrame:
    """Every comparison that is not in a file of records yet; and what they all say."""
    kept = Kept(out)
    torch.set_num_threads(1)  # runs are small, and equal on every machine then
    for name, dataset in DATASETS.items():
        kind = get_lab(name)
        lab = Source(kind, kind.configs["tiny"], "tiny").open(dataset)
        for seed, serial in product(SEEDS, AGAINST):
            run = (lab.data.scale, dataset, serial, lab.amount, seed, lab.config.rank)
            about = {"lab": name, "against": "LoRA at the same rank"}
            about |= lab.settings(get_method(serial))
            key = run_key("spectra", *run, about)
            kept.or_run(key, partial(compared, lab, serial, seed, about))
    return judged(out)


def compared(lab: Lab, serial: str, seed: int, about: dict, save_to: Path | None = None) -> Record:
    """Train both methods; the record of how their weights lie beside the base's.

    Args:
        about: the record's settings.
        save_to: unused: a comparison that is stopped begins anew.
    """
    sites = find_sites(lab.backbone.model, **lab.adapter_options())
    base, measures = weights(lab, sites), {}
    lora, _ = learned(lab, sites, AGAINST[serial], seed)
    own, record = learned(lab, sites, serial, seed)
    for name, W in base.items():
        for measure, value in beside(W, own[name], lora[name], record.rank).items():
            measures[f"{name} {measure}"] = float(f"{value:.5g}")
    return replace(record, task="spectra", measures=measures, settings=about, command=COMMAND)


def weights(lab: Lab, sites: Sequence[Site]) -> dict[str, Tensor]:
    """W of q, k and v, float64, with what is merged into it, by names such as "image 0 q"."""
    model = lab.backbone.model
    return {
        f"{site.tower} {site.block} {part}": p.weight(model)[p.row_slice].detach().double().clone()
        for site in sites
        for part, p in site.projections.items()
        if part in "qkv"
    }


def learned(
    lab: Lab, sites: Sequence[Site], method: str, seed: int
) -> tuple[dict[str, Tensor], Record]:
    """W with what a method learned; the model is as it was afterwards."""
    options = {"progress": False, "keep_adapter": True}
    record = run_one(lab, get_method(method), lab.amount, seed, **options)
    merge(lab.backbone.model)
    merged = weights(lab, sites)
    eject(lab.backbone.model)
    return merged, record


def beside(base: Tensor, serial: Tensor, lora: Tensor, rank: int) -> dict[str, float]:
    """What is asked of three weights (outputs, inputs), the adapted ones of a rank."""
    W, own, other = (torch.linalg.svdvals(each) for each in (base, serial, lora))
    change, lora_change = (torch.linalg.svdvals(each - base)[:rank] for each in (serial, lora))
    inside = (lora_change < change) & (change < W[:rank])
    entropy = [torch.special.entr(each / each.sum()).sum() for each in (change, lora_change)]
    return {
        "between": ((own - W) * (other - own) > 0).double().mean().item(),
        "change_between": inside.double().mean().item(),
        "effective_rank_serial": entropy[0].exp().item(),
        "effective_rank_lora": entropy[1].exp().item(),
    }


def judged(path: Path = SHIPPED) -> pd.DataFrame:
    """Mean over blocks and projections, then over seeds, with half of its 95% interval over seeds."""
    rows = []
    for record in read_records(path):
        means = pd.Series(record.measures).groupby(lambda name: name.rpartition(" ")[2]).mean()
        rows.append(
            {
                "lab": record.settings["lab"],
                "method": record.method,
                "W + dW between": means["between"],
                "dW between": means["change_between"],
                "erank": means["effective_rank_serial"] - means["effective_rank_lora"],
            }
        )
    groups = pd.DataFrame(rows).groupby(["lab", "method"], sort=False)
    half = groups.sem().apply(lambda error: half_width(error, groups.size() - 1))
    return pd.concat([groups.mean(), half.add_suffix(" ±")], axis=1)
