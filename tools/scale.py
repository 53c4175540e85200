"""What grids past one machine take: the tables of docs/scale.md.

::

    python -m tools.scale            write them (a few minutes: steps of the real models are counted)
    python -m tools.scale --check    exit 1 when they are stale

Runs, seconds, memory and disk are the dry run's (`serial_lora_course.labs.forecast`), the overhead of a run is
what `python -m benchmarks --only cluster` measured, and how a grid goes on many cards is simulated
(`serial_lora_course.labs.schedule`). Assumed is what stands in capitals below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks import report
from serial_lora_course.data.segmentation_files import MASKED_SETS
from serial_lora_course.data.style_files import RELEASE_OF
from serial_lora_course.door import enter
from serial_lora_course.labs.card import GIB
from serial_lora_course.labs.forecast import CARDS, NOT_ADAPTED, RunForecast, forecast
from serial_lora_course.labs.memory_sd3 import parts_frame
from serial_lora_course.labs.registry import get_lab
from serial_lora_course.labs.schedule import Outcome, Troubles, simulate
from serial_lora_course.labs.training import TrainingConfig
from serial_lora_course.models.architectures import ARCHITECTURES
from serial_lora_course.paper_tables import paper_results
from serial_lora_course.study.plan import PLANS, TRIED
from tools import ROOT
from tools.documents import put_between, rewrite

PAGE = ROOT / "docs" / "scale.md"
CARD = "rtx3090"  # the paper's
COUNTS = (1, 8, 64)  # cards
IN_A_MACHINE = 8
READS = 0.5e9  # bytes of weights a second, when a worker begins
SLOW, SLOWER = 0.05, 2.0  # the share of runs that last longer, and how many times as long
OWNED = 16_384 * 54 * 24 / 419  # hours of a card until it fails: Llama 3 lost 419 in 54 days
SPOT = 24.0  # hours until a rented card is taken away
WAYS = 40  # in which a grid is imagined to go
LABS = ("clip", "sam", "sd3")
MANY_SETS, MANY_METHODS = 24, 10
MANY_SEEDS = 3


@dataclass(frozen=True)
class Grid:
    """Runs that are done together.

    Attributes:
        labs: whose weights and data every machine needs.
    """

    title: str
    labs: tuple[str, ...]
    runs: tuple[RunForecast, ...]

    @property
    def adapted(self) -> list[RunForecast]:
        """Without what is measured of the unadapted model."""
        return [run for run in self.runs if run.method != NOT_ADAPTED]

    @property
    def hours(self) -> float:
        return sum(run.seconds for run in self.runs) / 3600


# ------------------------------------------------------------------------------------------ grids


@cache
def paper_runs(lab: str, resolution: int | None = None) -> tuple[RunForecast, ...]:
    """What the paper's table of a lab asks for, with three seeds."""
    table = paper_results().query("model == @lab")
    methods, datasets = (list(dict.fromkeys(table[name])) for name in ("method", "dataset"))
    amounts = sorted({int(re.match(r"\d+", amount)[0]) for amount in table["amount"]})  # "16 shot"
    some = {} if resolution is None else {"resolution": resolution}
    return tuple(forecast(lab, datasets, methods, amounts, (1, 2, 3), "paper", card=CARD, **some))


def lora_runs(lab: str) -> dict[str, RunForecast]:
    """A run of the most expensive method for each data set, on all that the paper trains on."""
    runs = [run for run in paper_runs(lab) if run.method == "lora" and run.seed == 1]
    return {run.dataset: run for run in sorted(runs, key=lambda run: run.amount)}


def study_runs(lab: str) -> Iterator[RunForecast]:
    """The study's arms, each as expensive as LoRA, on the paper's data sets instead of the tiny ones."""
    each = list(lora_runs(lab).values())
    for arm in PLANS[lab].arms:
        yield from TRIED * each[: len(PLANS[lab].chosen_on)]
        yield from arm.seeds * each


def many_runs(lab: str) -> Iterator[RunForecast]:
    """Many methods on many data sets, which are as large as those that are known, in turn."""
    runs = [run for run in paper_runs(lab) if run.method == "lora" and run.seed == 1]
    by_set = {name: [r for r in runs if r.dataset == name] for name in lora_runs(lab)}
    for each in islice(cycle(by_set.values()), MANY_SETS):
        yield from MANY_METHODS * MANY_SEEDS * each


def grids() -> list[Grid]:
    """The ones that the page is about."""
    two = ("clip", "sam")
    adapted = [run for lab in two for run in paper_runs(lab)]
    return [
        Grid(
            f"the paper's tables, SD3 at {pixels} px",
            LABS,
            (*adapted, *paper_runs("sd3", size)),
        )
        for pixels, size in ((512, None), (1024, 1024))
    ] + [
        Grid(
            f"the study's {' and '.join(lab.upper() for lab in two)} arms on the paper's sets",
            two,
            tuple(run for lab in two for run in study_runs(lab)),
        ),
        Grid(
            f"{MANY_METHODS} methods, {MANY_SETS} sets each for CLIP and SAM",
            two,
            tuple(run for lab in two for run in many_runs(lab)),
        ),
    ]


# ------------------------------------------------------------------------------- what has to be there


@cache
def weights_bytes(lab: str) -> int:
    """Of what is loaded."""
    if lab == "sd3":
        return int(parts_frame()["GiB"].sum() * GIB)
    return sum(4 * p.numel() for p in ARCHITECTURES[lab].on_meta().parameters())


def archives(lab: str) -> dict[str, int]:
    """Release -> bytes of its archives, as their publishers state them; 0 where they do not."""
    release = {
        "clip": lambda name: name,
        "sam": lambda name: MASKED_SETS[name].release,
        "sd3": lambda name: RELEASE_OF[name].name,
    }[lab]
    found = {}
    for name in dict.fromkeys(map(release, get_lab(lab).datasets("paper"))):
        source = import_module(f"data_scripts.{name}").SOURCE
        found[name] = sum(archive.facts.size or 0 for archive in source.archives)
    return found


def overhead() -> dict[str, float] | None:
    """Seconds of a run beside its own, and until a worker begins, as they were measured; None if not."""
    rows = (report.load() or {}).get("cluster")
    return {name: rows[-1][name] for name in ("overhead", "begin")} if rows else None


def troubles(grid: Grid, hours: float) -> Troubles:
    """What a grid meets on cards that live for so many hours on average."""
    measured = overhead() or {"overhead": 0.0, "begin": 0.0}
    weights = max(map(weights_bytes, grid.labs))
    return Troubles(
        overhead=measured["overhead"],
        begin=measured["begin"] + weights / READS,
        slow=SLOW,
        slower=SLOWER,
        life=3600 * hours,
        saved=TrainingConfig(steps=1, lr=1.0).save_every,
    )


def outcomes(grid: Grid, cards: int, met: Troubles) -> list[Outcome]:
    """Ways in which it may go."""
    random, seconds = np.random.default_rng(1), [run.seconds for run in grid.runs]
    return [simulate(seconds, cards, random, met) for _ in range(WAYS)]


# ----------------------------------------------------------------------------------------- the page


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"


def hours(count: float) -> str:
    return f"{count:,.0f}" if count >= 20 else f"{count:,.1f}"


def sizes_table(several: Sequence[Grid]) -> list[str]:
    head = ["", "runs", "optimizer steps", "drawings", f"hours of one {CARDS[CARD].name}"]
    head += [
        "memory on the card",
        "records",
        "with every adapter",
        "states written on the way, at most",
        "weights and archives, each machine",
    ]
    rows = []
    for grid in several:
        runs = grid.adapted
        adapters = sum(run.parameters for run in runs) * 4
        records = sum(run.disk for run in runs)
        state = TrainingConfig(steps=1, lr=1.0).save_every
        written = sum(run.state * max(1, run.seconds // state) for run in runs)
        there = sum(weights_bytes(lab) + sum(archives(lab).values()) for lab in grid.labs)
        rows.append(
            [grid.title, f"{len(runs):,}", f"{sum(run.steps for run in runs):,}"]
            + [f"{sum(run.drawings for run in grid.runs):,}", hours(grid.hours)]
            + [f"{max(run.memory for run in runs) / GIB:.1f} GiB", size(records)]
            + [size(records + adapters), size(written), size(there)]
        )
    return table(head, rows)


def cards_table(several: Sequence[Grid]) -> list[str]:
    head = ["", "cards", "hours, half of the ways", "nine in ten", "idle", "cards lost, owned"]
    head += ["cards lost, spot", "hours of work lost with those", "where no state is seen"]
    head += ["from the network in all"]
    rows = []
    for grid in several:
        there = sum(weights_bytes(lab) + sum(archives(lab).values()) for lab in grid.labs)
        spot = troubles(grid, SPOT)
        for cards in COUNTS:
            owned = outcomes(grid, cards, troubles(grid, OWNED))
            kept, anew = (
                outcomes(grid, cards, replace(spot, saved=s)) for s in (spot.saved, np.inf)
            )
            half, most = np.quantile([way.seconds / 3600 for way in owned], (0.5, 0.9))
            idle, lost = (
                np.mean([getattr(way, n) for way in ways])
                for n, ways in (("idle", owned), ("lost_workers", kept))
            )
            wasted = (np.mean([way.wasted / 3600 for way in ways]) for ways in (kept, anew))
            rows.append(
                [grid.title, str(cards), hours(half), hours(most), f"{idle:.0%}"]
                + [f"{grid.hours / OWNED:.1g}", f"{lost:.2g}", *map(hours, wasted)]
                + [size(there * -(-cards // IN_A_MACHINE))]
            )
    return table(head, rows)


def assumptions() -> str:
    measured = overhead()
    unknown = [n for lab in LABS for n, count in archives(lab).items() if not count]
    beside = (
        f"each run takes {measured['overhead']:.1f} s beside its own, and a worker begins "
        f"{measured['begin']:.0f} s after it is asked for (both measured on the tiny lab, see "
        "[`benchmarks/`](../benchmarks)), plus the time to read the weights"
        if measured
        else "what a run costs beside its own seconds was not measured yet and counts as nothing; a "
        "worker begins when it has read the weights"
    )
    return (
        f"In the simulation {beside} at {READS / 1e9:g} GB a second; {SLOW:.0%} of the runs take "
        f"{SLOWER:g} times as long; a card is lost once in {OWNED:,.0f} hours where it is owned, and once in "
        f"{SPOT:g} where it is rented by the spot; its run goes on from a state that is at most "
        f"{TrainingConfig(steps=1, lr=1.0).save_every:g} s old; a machine has {IN_A_MACHINE} cards. Archives whose "
        f"publishers state no size are left out: {', '.join(unknown)}."
    )


def part() -> str:
    """The generated part of the page."""
    several = grids()
    return "\n".join(["", *sizes_table(several), "", *cards_table(several), "", assumptions(), ""])


def main(arguments: list[str] | None = None) -> int:
    """Write the page or compare it; 1 when it is stale."""

    def pages() -> dict[Path, str]:
        return {PAGE: put_between(PAGE.read_text("utf-8"), "scale", part())}

    return rewrite("tools.scale", __doc__, pages, arguments)


if __name__ == "__main__":
    enter("tools.scale", main)
