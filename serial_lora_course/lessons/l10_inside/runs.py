"""What adapters learn, seed by seed: the paper's Fig. 3 on the tiny models, as records.

    python -m serial_lora_course.lessons.l10_inside.runs --seeds 3 --out runs/spectra.jsonl

For each model and seed the lab trains LoRA and Serial LoRA, then LoRA+ and Serial LoRA+, and
measures each pair with :func:`serial_lora_course.lessons.l10_inside.tables.claim_table`. One record is
one pair, under the serial method's name. A pair that the file holds already is not trained again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from serial_lora.injection import eject
from serial_lora_course.door import enter
from serial_lora_course.labs.config import seeds_to
from serial_lora_course.labs.lab import Lab, run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.processes import process_state
from serial_lora_course.labs.records import Kept, Record, run_key
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.lessons.l10_inside.tables import claim_table
from serial_lora_course.measures.intervals import half_width
from serial_lora_course.measures.spectra import WeightChange, weight_changes

PAIRS = {"serial_lora": "lora", "serial_lora_plus": "lora_plus"}
"""Each serial method and the LoRA that the paper's Fig. 3 sets beside it."""
DATASETS = {"clip": "symbols", "sam": "food"}
"""The labs whose models are looked into, and what they are adapted to."""
PLACE = ("tower", "block", "projection")
DIGITS = 5


@dataclass(frozen=True)
class Subject:
    """A lab on one data set, and how much of it trains, in the lab's unit."""

    lab: Lab
    amount: int

    def learn(self, method: str, seed: int) -> tuple[Record, list[WeightChange]]:
        """Train one adapter, look at it, and leave the model as it was."""
        record = run_one(
            self.lab, get_method(method), self.amount, seed, progress=False, keep_adapter=True
        )
        changes = weight_changes(self.lab.backbone.model)
        eject(self.lab.backbone.model)
        return record, changes

    def settings(self, serial: str) -> dict[str, Any]:
        """What a record's key covers beside data set, method, amount, seed and rank."""
        own = {"lab": self.lab.name, "against": "LoRA at the same rank"}
        return own | self.lab.settings(get_method(serial))

    def key(self, serial: str, seed: int) -> str:
        """The key that the record of a pair will have."""
        run = (self.lab.data.scale, self.lab.data.name, serial, self.amount, seed)
        rank = get_method(serial).rank(self.lab.config.rank)
        return run_key("spectra", *run, rank, self.settings(serial))


def make_subject(
    lab: str, dataset: str | None = None, amount: int | None = None, **changes: object
) -> Subject:
    """A tiny model, adapted to a data set of its lab; ``changes`` are of the lab's settings."""
    kind = get_lab(lab)
    config = kind.configured("tiny", **changes)
    data = kind.load_data(dataset or DATASETS[lab], "tiny", None)
    backbone = kind.load_backbone(config, "tiny", "default")
    backbone.model.to(process_state().device)
    return Subject(kind(backbone, data, config), amount or kind.amount)


def run_pair(subject: Subject, serial: str, seed: int, save_to: Path | None = None) -> Record:
    """Train a serial method and its LoRA with one seed; the record of what they learned.

    A pair that is interrupted begins anew, so that nothing goes to ``save_to``.
    """
    theirs, lora = subject.learn(PAIRS[serial], seed)
    ours, own = subject.learn(serial, seed)
    both = ("parameters", ours), ("parameters_lora", theirs)
    return replace(
        ours,
        task="spectra",
        measures=_flat(claim_table(lora, own)),
        sizes={name: record.sizes["parameters"] for name, record in both},
        seconds=round(ours.seconds + theirs.seconds, 2),
        settings=subject.settings(serial),
        command=" ".join(["python -m serial_lora_course.lessons.l10_inside.runs", *sys.argv[1:]]),
    )


def _flat(table: pd.DataFrame) -> dict[str, float]:
    """One number under each "tower block projection measure", such as "image 0 q between"."""
    rows = table.drop(columns="site").set_index(list(PLACE))
    return {
        " ".join(map(str, (*place, name))): float(f"{value:.{DIGITS}g}")
        for place, row in rows.iterrows()
        for name, value in row.items()
    }


def claim_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record, block and projection: the columns of ``claim_table``, and whose they are.

    Returns:
        Columns lab, dataset, method (the serial one), seed, tower, block, projection, then the
        measures.
    """
    rows: dict[tuple[object, ...], dict[str, float]] = {}
    for record in records:
        run = (record.settings["lab"], record.dataset, record.method, record.seed)
        for key, value in record.measures.items():
            tower, block, projection, name = key.split()
            rows.setdefault((*run, tower, int(block), projection), {})[name] = value
    names = ("lab", "dataset", "method", "seed", *PLACE)
    return pd.DataFrame([dict(zip(names, row, strict=True)) | rows[row] for row in rows])


STATEMENTS = {
    "reading 1: W + dW between, consistently": ("between", "{:.1%}"),
    "reading 2: dW between, consistently": ("change_between", "{:.1%}"),
    "decay: higher effective rank of dW": ("gain", "{:+.2f}"),
}
"""What the paper's sentences come to: a measure of `claim_frame`, and how its mean is written."""


def judge_statements(results: pd.DataFrame, consistent: float) -> pd.DataFrame:
    """What each statement comes to on each model, for each pair of methods.

    A statement holds where its mean over blocks and projections is above what it needs by more than
    half of its 95% interval over seeds, and fails where it is that far below.

    Args:
        results: as :func:`claim_frame` gives them.
        consistent: the share of the indices that "consistently between" needs.

    Returns:
        Columns model, methods, statement, mean, ± standard error, verdict.
    """
    gain = results["effective_rank_serial"] - results["effective_rank_lora"]
    rows = []
    for (lab, method), part in results.assign(gain=gain).groupby(["lab", "method"], sort=False):
        pair = f"{get_method(method).label} beside {get_method(PAIRS[method]).label}"
        for statement, (measure, text) in STATEMENTS.items():
            by_seed = part.groupby("seed")[measure].mean()
            distance = by_seed.mean() - (0.0 if measure == "gain" else consistent)
            undecided = abs(distance) <= half_width(by_seed.sem(), len(by_seed) - 1)
            verdict = "not decided" if undecided else "holds" if distance > 0 else "fails"
            mean, error = text.format(by_seed.mean()), text.format(by_seed.sem()).lstrip("+")
            rows.append((lab, pair, statement, mean, error, verdict))
    columns = ["model", "methods", "statement", "mean", "± standard error", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def run_all(subjects: Iterable[Subject], seeds: Iterable[int], out: Path) -> list[Record]:
    """Run every pair that ``out`` does not hold yet.

    Raises:
        SerialLoRAError: ``out`` cannot be read or written; nothing has been run then.
    """
    kept, seeds, records = Kept(out), list(seeds), []
    for subject in subjects:
        subject.lab.records = kept.known.values()
        for seed in seeds:
            for serial in PAIRS:
                pair = partial(run_pair, subject, serial, seed)
                record, _ = kept.or_run(subject.key(serial, seed), pair)
                print(f"{subject.lab.name} {serial} seed {seed}: done", flush=True)
                records.append(record)
    return records


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 on")
    parser.add_argument("--labs", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--out", type=Path, required=True, help="JSONL file of records")
    options = parser.parse_args(arguments)
    run_all(map(make_subject, options.labs), seeds_to(options.seeds), options.out)


if __name__ == "__main__":
    enter("spectra", main)
