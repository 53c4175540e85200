"""The paper's Fig. 3, asked of small models: do Serial LoRA's singular values lie between the base's and LoRA's?

    python -m study.spectra                       # what the shipped runs say
    python -m study.spectra runs/spectra.jsonl    # the same of runs that are made anew

For CLIP and SAM and each seed, Serial LoRA and LoRA are trained at one rank, each with and without the plus.
The paper does not say whether its figure shows W + dW or dW, so both are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.linalg import svdvals

from serial_lora import eject, merge
from serial_lora.attention import find_attention_sites
from serial_lora_course.door import enter
from serial_lora_course.labs.lab import Lab, run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Kept, Record, read_records, run_key
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.measures.intervals import half_width

SHIPPED = Path(__file__).parent / "results" / "spectra.jsonl"
PAIRS = {"serial_lora": "lora", "serial_lora_plus": "lora_plus"}
DATASETS = {"clip": "symbols", "sam": "food"}
SEEDS = (1, 2, 3)
Weights = dict[str, Tensor]


@torch.no_grad()
def weights(model: nn.Module) -> Weights:
    """W of q, k and v in every block, by tower, block and projection, in float64."""
    return {
        f"{site.tower} {site.block} {part}": site.projections[part]
        .weight(model)[site.projections[part].row_slice]
        .to("cpu", torch.float64, copy=True)
        for site in find_attention_sites(model)
        for part in "qkv"
    }


def adapted(lab: Lab, method: str, seed: int) -> tuple[Record, Weights]:
    """The record of a run and the merged weights; the model is left as it was."""
    model = lab.backbone.model
    record = run_one(lab, get_method(method), lab.amount, seed, progress=False, keep_adapter=True)
    found = weights(merge(model))
    eject(model)
    return record, found


def compare(base: Weights, lora: Weights, serial: Weights, rank: int) -> dict[str, float]:
    """The measures of every block and projection, such as "image 0 q between"."""
    found = {}
    for place, W in base.items():
        before, low, ours = (svdvals(each[place]) for each in (base, lora, serial))
        changes = [svdvals(each[place] - W)[:rank] for each in (lora, serial)]
        inside = (changes[0] < changes[1]) & (changes[1] < before[:rank])
        found[f"{place} between"] = ((ours - before) * (low - ours) > 0).double().mean().item()
        found[f"{place} change_between"] = inside.double().mean().item()
        for name, values in zip(("lora", "serial"), changes, strict=True):
            entropy = torch.special.entr(values / values.sum()).sum()
            found[f"{place} effective_rank_{name}"] = entropy.exp().item()
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def made_anew(out: Path) -> Iterator[Record]:
    """Every pair of runs, those that ``out`` does not hold yet trained; under the serial method's name."""
    for lab_name, dataset in DATASETS.items():
        kind, kept = get_lab(lab_name), Kept(out)
        config = kind.configured("tiny")
        backbone = kind.load_backbone(config, "tiny", "default")
        lab = kind(backbone, kind.load_data(dataset, "tiny", None), config)
        base = weights(lab.backbone.model)
        for serial, seed in [(serial, seed) for serial in PAIRS for seed in SEEDS]:
            settings = {"lab": lab.name, **lab.settings(get_method(serial))}
            rank = get_method(serial).rank(lab.config.rank)

            def pair(save_to=None, lab=lab, seed=seed, serial=serial, settings=settings, base=base):
                _, lora = adapted(lab, PAIRS[serial], seed)
                record, own = adapted(lab, serial, seed)
                found = compare(base, lora, own, record.rank)
                return replace(record, task="spectra", measures=found, settings=settings)

            run = (lab.data.scale, lab.data.name, serial, lab.amount, seed, rank)
            yield kept.or_run(run_key("spectra", *run, settings), pair)[0]


def judged(records: Iterable[Record]) -> pd.DataFrame:
    """Mean over blocks and projections, then over seeds, with half of its 95% interval over seeds."""
    rows = []
    for record in records:
        means = pd.Series(record.measures).groupby(lambda name: name.rpartition(" ")[2]).mean()
        gain = means["effective_rank_serial"] - means["effective_rank_lora"]
        row = {"lab": record.settings["lab"], "method": record.method, "erank": gain}
        row |= {"W + dW between": means["between"], "dW between": means["change_between"]}
        rows.append(row)
    groups = pd.DataFrame(rows).groupby(["lab", "method"], sort=False)
    half = groups.sem().apply(lambda error: half_width(error, groups.size() - 1))
    return pd.concat([groups.mean(), half.add_suffix(" ±")], axis=1)


def main(arguments: list[str]) -> None:
    """The command line."""
    records = made_anew(Path(arguments[0])) if arguments else read_records(SHIPPED)
    print(judged(records).round(3).to_string())


if __name__ == "__main__":
    enter("spectra", main)
