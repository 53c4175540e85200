"""Many runs of a lab: which there are, which are left, and doing them one after another or elsewhere.

    records = run_lab("clip", ["nature"], ["lora", "serial_lora"], amounts=[16], seeds=[1, 2, 3])

This process decides what is run and writes every record. A run itself needs no more than a
:class:`Source`, a :class:`Run` and where to save its state, so that it may be done in another process.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from serial_lora.attention import find_attention_sites
from serial_lora.injection import check_fit
from serial_lora_course.data.types import DividedData
from serial_lora_course.labs.config import LabConfig, check_choices, several, swept_configs
from serial_lora_course.labs.lab import Draw, Lab, run_one
from serial_lora_course.labs.methods import Method, get_method, with_ratios
from serial_lora_course.labs.processes import process_state, progress_bar, require_even_shares
from serial_lora_course.labs.records import Kept, Record
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.models.weights import Backbone


@dataclass(frozen=True)
class Source:
    """Where the labs of a grid come from: enough for any process to open them.

    Attributes:
        config: the settings that are prepared and measured with.
        root: folder of the downloaded data.
    """

    kind: type[Lab]
    config: LabConfig
    scale: str
    root: Path | None = None
    weights: str | Path | None = "default"


class Labs:
    """A source's labs in this process: the model is loaded once, and what is prepared of a data set goes
    with its lab."""

    def __init__(self, source: Source) -> None:
        self.source, self.sets = source, {}

    def data(self, name: str) -> DividedData:
        if name not in self.sets:
            self.sets[name] = self.source.kind.load_data(name, self.source.scale, self.source.root)
        return self.sets[name]

    @cached_property
    def backbone(self) -> Backbone:
        source = self.source
        return source.kind.load_backbone(source.config, source.scale, source.weights)

    @cached_property
    def tools(self) -> dict[str, Any]:
        return self.source.kind.load_tools(self.source.scale)

    def open(self, name: str) -> Lab:
        """A fresh lab on a data set."""
        return self.source.kind(self.backbone, self.data(name), self.source.config, **self.tools)


@dataclass(frozen=True)
class Run:
    """One run on a data set."""

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

    def steps(self, lab: type[Lab], data: DividedData) -> int:
        """Of the optimizer."""
        return self.config.steps(len(lab.indices(data, self.amount, self.seed)))


@dataclass(frozen=True)
class Grid:
    """Every run that was asked for: the same ones on each data set. Nothing is loaded yet.

    Attributes:
        datasets: their names, as they were asked for.
    """

    labs: Labs
    datasets: tuple[str, ...]
    runs: tuple[Run, ...]

    def __len__(self) -> int:
        return len(self.datasets) * len(self.runs)

    def check(self) -> None:
        """Refuse, before the first of them begins, runs that do not fit the pictures or the model."""
        kind, config = self.labs.source.kind, self.labs.source.config
        parts = dict.fromkeys((run.amount, run.seed) for run in self.runs)
        for dataset, part in itertools.product(self.datasets, parts):
            pictures = len(kind.indices(self.labs.data(dataset), *part))
            require_even_shares(min(config.batch_size, pictures))
        lab, sites = self.labs.open(self.datasets[0]), None
        for config, method in dict.fromkeys((run.config, run.method) for run in self.runs):
            lab.config = config
            adapter = lab.adapter(method)
            if sites is None:
                some = (adapter.towers, adapter.blocks, adapter.stream)
                sites = find_attention_sites(lab.backbone.model, *some)
            check_fit(lab.backbone.model, sites, adapter)

    def open(self, dataset: str, kept: Kept) -> Lab:
        """A lab on a data set that goes on from the records."""
        lab = self.labs.open(dataset)
        lab.records = kept.known.values()
        return lab

    def place(self, dataset: str, run: Run) -> int:
        """Where the run's record stands among all of the grid's."""
        return self.datasets.index(dataset) * len(self.runs) + self.runs.index(run)


def make_grid(
    name: str,
    datasets: Sequence[str],
    methods: Sequence[str] = ("lora", "serial_lora"),
    amounts: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] = (1, 2, 3),
    scale: str = "tiny",
    *,
    root: Path | None = None,
    weights: str | Path | None = "default",
    ratio: float | Sequence[float] | None = None,
    **changes: object,
) -> Grid:
    """Every combination of what is asked for.

    Args:
        name: of the lab.
        amounts: of training data, in the lab's unit; each a part of the larger ones. None for the
            lab's own.
        root: folder of the downloaded data.
        ratio: rate of B over that of A in the LoRA+ methods, one or several; None for 20.
        changes: settings that differ from the scale's own; of `SWEPT` ones several values. Each
            method runs once at each rank and rate that it uses: ``plus_lr`` is the LoRA+ methods'.

    Raises:
        SerialLoRAError: an unknown lab, method or setting, or nothing to run.
    """
    kind = get_lab(name)
    configs = swept_configs(kind.configs, scale, **changes)
    datasets, names, seeds = several(datasets), several(methods), several(seeds)
    amounts = several(kind.amount if amounts is None else amounts)
    check_choices(datasets=datasets, methods=names, seeds=seeds, **{kind.unit: amounts})
    variants = _variants(configs, [get_method(each) for each in names], ratio)
    runs = itertools.product(amounts, seeds, variants)
    labs = Labs(Source(kind, configs[0], scale, root, weights))
    return Grid(labs, tuple(datasets), tuple(Run(*v, amount, seed) for amount, seed, v in runs))


@dataclass(frozen=True)
class Done:
    """A run whose record is there.

    Attributes:
        place: of the record among all of the grid's.
        is_new: whether it was run for this.
    """

    place: int
    record: Record
    is_new: bool


def here(grid: Grid, kept: Kept, **options: Any) -> Iterator[Done]:
    """The runs of a grid one after another, in this process; old records too, in the grid's order.

    Runs that another process is at, on the same records, are waited for at the end.

    Args:
        options: of `run_one`.
    """
    elsewhere = []
    for dataset in grid.datasets:
        lab = grid.open(dataset, kept)
        lab.backbone.model.to(process_state().device)
        for run in grid.runs:
            key = run.key(lab)
            found = kept.or_run(key, partial(run.do, lab, **options), wait=False)
            if found is None:
                elsewhere.append((dataset, run, key))
                continue
            yield Done(grid.place(dataset, run), *found)
    for dataset, run, key in elsewhere:

        def do(dataset: str = dataset, run: Run = run, **save_to: Path | None) -> Record:
            return run.do(grid.open(dataset, kept), **options, **save_to)

        yield Done(grid.place(dataset, run), *kept.or_run(key, do))


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
        SerialLoRAError: an unknown data set, method or setting; nothing has been run then.
    """
    grid = make_grid(*asked, **changes)
    grid.check()
    records = {}
    options = {"progress": progress, "draw": draw, "command": command}
    with progress_bar("runs", len(grid), shown=progress) as bar:
        for done in doing(grid, Kept(out), **options):
            records[done.place] = done.record
            if on_record:
                with bar.external_write_mode():
                    on_record(done.record, done.is_new)
            bar.total -= not done.is_new  # of what is left, a bar tells how long it takes
            bar.update(done.is_new)
    return [records[place] for place in sorted(records)]


def _variants(
    configs: Sequence[LabConfig], methods: Sequence[Method], ratio: object
) -> list[tuple[LabConfig, Method]]:
    """Which methods run under which settings, each checked to have a share of the rank."""
    if ratio is not None:
        ratios = several(ratio)
        check_choices(ratios=[float(each) for each in ratios])
        methods = with_ratios(methods, ratios)
    variants = []
    for config, method in itertools.product(configs, methods):
        method.rank(config.rank)
        unused = "lr" if method.plus and config.plus_lr is not None else "plus_lr"
        variants.append((replace(config, **{unused: getattr(configs[0], unused)}), method))
    return list(dict.fromkeys(variants))
