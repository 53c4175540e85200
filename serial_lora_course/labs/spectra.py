"""What adapters learn, seed by seed: the paper's Fig. 3 on the tiny models, as records.

    python -m serial_lora_course.labs.spectra --seeds 3 --out runs/spectra.jsonl

For each model and seed the lab trains LoRA and Serial LoRA, then LoRA+ and Serial LoRA+, and
measures each pair with :func:`serial_lora_course.labs.change_tables.claim_table`. One record is
one pair, under the serial method's name. A pair that the file holds already is not trained again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora.injection import eject
from serial_lora.spectra import WeightChange, weight_changes
from serial_lora_course.data.registry import load_classification, load_segmentation
from serial_lora_course.labs import clip, sam
from serial_lora_course.labs.change_tables import claim_table
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Record, environment, require_writable
from serial_lora_course.labs.runs import Plan, lab_device, run_plan
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.sam import load_sam

PAIRS = {"serial_lora": "lora", "serial_lora_plus": "lora_plus"}
"""Each serial method and the LoRA that the paper's Fig. 3 sets beside it."""
PLACE = ("tower", "block", "projection")
DIGITS = 5


@dataclass(frozen=True)
class Subject:
    """A tiny model and the task that it is adapted to.

    Attributes:
        lab: "clip" or "sam".
        name: of the data set, as the lab knows it.
        amount: how much of it trains, in the lab's unit (shots or percent).
        settings: every other choice of the lab.
        run: (method, seed) -> the lab's record; the adapter stays in the model.
    """

    scale: ClassVar[str] = "tiny"
    lab: str
    model: nn.Module
    name: str
    amount: int
    rank: int
    settings: dict
    run: Callable[[Any, int], Record]

    def learn(self, method: str, seed: int) -> tuple[Record, list[WeightChange]]:
        """Train one adapter, look at it, and leave the model as it was."""
        record = self.run(get_method(method), seed)
        changes = weight_changes(self.model)
        eject(self.model)
        return record, changes


def clip_subject(dataset: str = "symbols", shots: int = 16, **changes: object) -> Subject:
    """The tiny CLIP, adapted to a data set of the CLIP lab; ``changes`` are of its settings."""
    config, backbone = clip.lab_config("tiny", **changes), load_clip("tiny")
    data = load_classification(dataset)
    backbone.model.to(lab_device())
    base = clip.zero_shot(backbone, data)

    def run(method: Any, seed: int) -> Record:
        return clip.run_one(
            backbone, data, method, shots, seed, config, base, progress=False, keep_adapter=True
        )

    settings = clip.run_settings(backbone, data, config)
    return Subject("clip", backbone.model, dataset, shots, config.rank, settings, run)


def sam_subject(dataset: str = "food", percent: int = 100, **changes: object) -> Subject:
    """The tiny SAM, adapted to a data set of the SAM lab; ``changes`` are of its settings."""
    config, backbone = sam.lab_config("tiny", **changes), load_sam("tiny")
    data = load_segmentation(dataset)
    backbone.model.to(lab_device())
    base = sam.base_measures(backbone, data)

    def run(method: Any, seed: int) -> Record:
        return sam.run_one(
            backbone, data, method, percent, seed, config, base, progress=False, keep_adapter=True
        )

    settings = sam.run_settings(backbone, data, config)
    return Subject("sam", backbone.model, dataset, percent, config.rank, settings, run)


SUBJECTS = {"clip": clip_subject, "sam": sam_subject}


def run_pair(subject: Subject, serial: str, seed: int) -> Record:
    """Train a serial method and its LoRA with one seed; the record of what they learned."""
    theirs, lora = subject.learn(PAIRS[serial], seed)
    ours, own = subject.learn(serial, seed)
    return Record(
        task="spectra",
        scale=subject.scale,
        dataset=subject.name,
        method=serial,
        amount=subject.amount,
        unit="shots" if subject.lab == "clip" else "percent",
        seed=seed,
        rank=subject.rank,
        measures=_flat(claim_table(lora, own)),
        sizes={
            "parameters": ours.sizes["parameters"],
            "parameters_lora": theirs.sizes["parameters"],
        },
        seconds=round(ours.seconds + theirs.seconds, 2),
        settings=_settings(subject),
        environment=environment(),
    )


def _settings(subject: Subject) -> dict:
    return {"lab": subject.lab, "against": "LoRA at the same rank"} | subject.settings


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
    rows = []
    for record in records:
        places: dict[tuple[str, ...], dict[str, float]] = {}
        for key, value in record.measures.items():
            *place, name = key.split()
            places.setdefault(tuple(place), {})[name] = value
        run = {
            "lab": record.settings["lab"],
            "dataset": record.dataset,
            "method": record.method,
            "seed": record.seed,
        }
        for (tower, block, projection), measures in places.items():
            place = {"tower": tower, "block": int(block), "projection": projection}
            rows.append(run | place | measures)
    return pd.DataFrame(rows)


def run_all(subjects: Iterable[Subject], seeds: Iterable[int], out: Path) -> list[Record]:
    """Run every pair that ``out`` does not hold yet, and print how it goes.

    Raises:
        SerialLoRAError: ``out`` cannot be read or written; nothing has been run then.
    """
    require_writable(out)  # before the first subject is made, which takes a while
    seeds, methods, records = list(seeds), [get_method(name) for name in PAIRS], []
    for subject in subjects:
        records += run_plan(
            Plan("spectra", [subject], methods, [subject.amount], seeds, subject.rank),
            settings=_settings,
            measure_base=lambda subject: None,  # each subject knows its own already
            run=lambda subject, method, amount, seed, *_: run_pair(subject, method.name, seed),
            out=out,
            on_record=lambda record, is_new: print(_line(record), flush=True),
        )
    return records


def _line(record: Record) -> str:
    frame = claim_frame([record])
    means = frame[["between", "change_between", "effective_rank_lora", "effective_rank_serial"]]
    said = ", ".join(f"{name} {value:.2f}" for name, value in means.mean().items())
    return f"{record.settings['lab']} {record.method} seed {record.seed}: {said}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 2 when the file cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m serial_lora_course.labs.spectra",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 on")
    parser.add_argument("--labs", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--out", type=Path, required=True, help="JSONL file of records")
    options = parser.parse_args(arguments)
    try:
        run_all((SUBJECTS[lab]() for lab in options.labs), range(1, options.seeds + 1), options.out)
    except SerialLoRAError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
