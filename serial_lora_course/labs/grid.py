"""Many runs of a lab: which there are, which are left, and doing them one after another or elsewhere.

    records = run_lab("clip", ["nature"], ["lora", "serial_lora"], amounts=[16], seeds=[1, 2, 3])

This process decides what is run and writes every record. A run itself needs no more than a
:class:`Source`, a :class:`Run` and where to save its state, so that it may be done in another process.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from serial_lora.attention import find_sites
from serial_lora.errors import require_number
from serial_lora.injection import check_fit
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.config import LabConfig, several, swept_configs
from serial_lora_course.labs.device import this_device
from serial_lora_course.labs.lab import Draw, Lab, adapted, run_one
from serial_lora_course.labs.methods import Method, get_method, with_ratios
from serial_lora_course.labs.records import Kept, Record, read_records, with_unit
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.labs.training import progress_bar, train
from serial_lora_course.models.weights import Backbone

Done = tuple["Run", Record, bool]
"""A run, its record, and whether it was run just now."""


@dataclass(frozen=True)
class Source:
    """Where labs come from: enough for any process to open them. What is loaded is loaded once.

    Attributes:
        config: the settings that are prepared and measured with.
    """

    kind: type[Lab]
    config: LabConfig
    scale: str
    weights: str | Path | None = "default"

    def data(self, name: str) -> DividedData:
        if name not in self._sets:
            self._sets[name] = self.kind.load_data(name, self.scale)
        return self._sets[name]

    @cached_property
    def _sets(self) -> dict[str, DividedData]:
        return {}

    @cached_property
    def backbone(self) -> Backbone:
        return self.kind.load_backbone(self.config, self.scale, self.weights)

    @cached_property
    def tools(self) -> dict[str, Any]:
        return self.kind.load_tools(self.scale)

    def open(self, name: str) -> Lab:
        """A fresh lab on a data set."""
        return self.kind(self.backbone, self.data(name), self.config, **self.tools)


@dataclass(frozen=True)
class Run:
    """One run on a data set."""

    dataset: str
    config: LabConfig
    method: Method
    amount: int
    seed: int

    def key(self, lab: Lab) -> str:
        """Of its record."""
        lab.config = self.config
        return lab.key(self.method, self.amount, self.seed)

    def do(self, lab: Lab, **options: Any) -> Record:
        """Its record; the options are those of `run_one`."""
        lab.config = self.config
        return run_one(lab, self.method, self.amount, self.seed, **options)


def make_grid(
    name: str,
    datasets: str | Sequence[str],
    methods: Sequence[str] = ("lora", "serial_lora"),
    amounts: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] = (1, 2, 3),
    scale: str = "tiny",
    *,
    weights: str | Path | None = "default",
    ratio: float | Sequence[float] | None = None,
    **changes: object,
) -> tuple[Source, list[Run]]:
    """Every combination of what is asked for, one data set after another.

    Args:
        name: of the lab.
        amounts: of training data, in the lab's unit; each a part of the larger ones. None for the
            lab's own.
        ratio: rate of B over that of A in the LoRA+ methods, one or several; None for 20.
        changes: settings that differ from the scale's own; of `SWEPT` ones several values. Each
            method runs once at each rank and rate that it uses: ``plus_lr`` is the LoRA+ methods'.

    Raises:
        SerialLoRAError: an unknown lab, data set, method or setting, nothing to run, or a run that does
            not fit the pictures or the model.
    """
    kind = get_lab(name)
    configs = swept_configs(kind.configs, scale, **changes)
    asked = [get_method(each) for each in several("methods", methods)]
    if ratio is not None:
        asked = with_ratios(asked, several("ratios", ratio))
    variants = []
    for config, method in itertools.product(configs, asked):
        method.rank(config.rank)
        unused = "lr" if method.plus and config.plus_lr is not None else "plus_lr"
        variants.append((replace(config, **{unused: getattr(configs[0], unused)}), method))
    datasets, seeds = several("datasets", datasets), several("seeds", seeds)
    amounts = several(kind.unit, kind.amount if amounts is None else amounts)
    for seed in seeds:
        require_number("seeds", seed, whole=True, least=1)
    runs = [
        Run(dataset, *variant, amount, seed)
        for dataset, amount, seed, variant in itertools.product(
            datasets, amounts, seeds, dict.fromkeys(variants)
        )
    ]
    source = Source(kind, configs[0], scale, weights)
    for dataset, amount, seed in itertools.product(datasets, amounts, seeds):
        kind.indices(source.data(dataset), amount, seed)
    _check_fit(source.open(datasets[0]), runs)
    return source, runs


def _check_fit(lab: Lab, runs: Sequence[Run]) -> None:
    """Refuse an adapter that does not fit the model."""
    sites = {}  # where they are is the same for many
    for lab.config, method in dict.fromkeys((run.config, run.method) for run in runs):
        adapter = lab.adapter(method)
        if adapter.where not in sites:
            sites[adapter.where] = find_sites(lab.backbone.model, *adapter.where)
        check_fit(lab.backbone.model, sites[adapter.where], adapter)


def here(source: Source, runs: Sequence[Run], kept: Kept, **options: Any) -> Iterator[Done]:
    """Runs one after another, in this process; old records too.

    Runs that another process is at, on the same records, are waited for at the end.

    Args:
        options: of `run_one`.
    """
    elsewhere = []
    for dataset, its in itertools.groupby(runs, key=attrgetter("dataset")):
        lab = source.open(dataset)
        lab.backbone.model.to(this_device())
        for run in its:
            found = kept.or_run(run.key(lab), partial(run.do, lab, **options), wait=False)
            if found is None:
                elsewhere.append(run)
            else:
                yield run, *found
    for run in elsewhere:
        lab = source.open(run.dataset)
        yield run, *kept.or_run(run.key(lab), partial(run.do, lab, **options))


def run_lab(
    *asked: Any,
    out: Path | None = None,
    progress: bool | None = None,
    on_record: Callable[[Record, bool], None] | None = None,
    draw: Draw | None = None,
    command: str = "",
    doing: Callable[..., Iterator[Done]] = here,
    **changes: Any,
) -> list[Record]:
    """Run every combination that ``out`` does not hold yet; all records, old ones included.

    Args:
        asked, changes: as of :func:`make_grid`.
        out: JSONL file of records; None keeps them in memory only.
        on_record: called with each record and whether it is new.
        progress: show a bar of the runs, and one of each run's steps; None for "in a terminal only".
        draw: called with each run that is new.
        command: the command line that asked for it, for the records.
        doing: how the runs are done; in this process by default.

    Raises:
        SerialLoRAError: as :func:`make_grid`; nothing has been run then.
    """
    source, runs = make_grid(*asked, **changes)
    records = {}
    options = {"progress": progress, "draw": draw, "command": command}
    with progress_bar("runs", len(runs), shown=progress) as bar:
        for run, record, is_new in doing(source, runs, Kept(out), **options):
            records[run] = record
            if on_record:
                with bar.external_write_mode():
                    on_record(record, is_new)
            bar.total -= not is_new  # of what is left, a bar tells how long it takes
            bar.update(is_new)
    return [records[run] for run in runs]


# --------------------------------------------------------------------------------------- dry run


def dry_run(*asked: Any, out: Path | None = None, **changes: Any) -> Iterator[str]:
    """A line for each run that `run_lab` has left to do, and one for each data set; nothing is written.

    The first run that is left of a data set takes two steps of its training: the second is timed, and
    the others of the set are taken to be as long, a step.

    Raises:
        SerialLoRAError: as `run_lab`.
    """
    source, runs = make_grid(*asked, **changes)
    known = {record.key for record in (read_records(out) if out is not None else [])}
    all_left, all_seconds = 0, 0.0
    for dataset, some in itertools.groupby(runs, key=attrgetter("dataset")):
        lab, its = source.open(dataset), list(some)
        left = [run for run in its if run.key(lab) not in known]
        steps, seconds = 0, seconds_of_step(lab, left[0]) if left else 0.0
        for run in left:
            own = run.config.steps(len(lab.indices(lab.data, run.amount, run.seed)))
            steps += own
            size = run.method.sized(run.method.rank(run.config.rank))
            yield f"{dataset} · {size} · {with_unit(run.amount, lab.unit)} · seed {run.seed} · {own} steps"
        own_seconds = steps * seconds
        took = timedelta(seconds=round(own_seconds))
        told = f", {steps:,} steps, about {took} of training here" if left else ""
        yield f"{dataset}: {len(left)} runs left and {len(its) - len(left)} done{told}"
        all_left, all_seconds = all_left + len(left), all_seconds + own_seconds
    if all_left:
        took = timedelta(seconds=round(all_seconds))
        yield (
            f"All: {all_left} runs left, about {took} of training here, one after another; measuring "
            "comes on top."
        )


def seconds_of_step(lab: Lab, run: Run) -> float:
    """Of one optimizer step of a run: the second of two."""
    lab.config = replace(run.config, min_steps=max(2, run.config.min_steps))
    ends: list[float] = []

    def twice(step: int) -> bool:
        ends.append(time.perf_counter())
        return step == 2

    with adapted(lab.backbone.model, lab.adapter(run.method), run.seed):
        stream = lab.stream(lab.indices(lab.data, run.amount, run.seed), run.seed)
        training = lab.config.training(stream.steps)
        train(lab.objective(), stream, training, progress=False, after_step=twice)
    return ends[1] - ends[0]
