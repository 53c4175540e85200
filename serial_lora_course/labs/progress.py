"""The progress of a training and of a grid. Nothing here is needed to understand the training loop."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serial_lora_course.labs.schedule import simulate

ENOUGH = 3  # runs that must have ended before anything is said of the others
LONG = 60  # seconds
WAYS = 100  # in which the rest of a grid is imagined to go


class ProgressBar:
    """Steps done, and the loss; silent where nobody watches.

    Args:
        wanted: whether to show it; None for "in a terminal or a notebook only".
    """

    def __init__(self, description: str, steps: int, done: int, wanted: bool | None) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal or console.is_jupyter if wanted is None else wanted
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
            transient=True,
        )
        self.task = self.progress.add_task(description, total=steps, completed=done, loss="")

    def step(self, loss: float) -> None:
        self.progress.update(self.task, advance=1, loss=f"{loss:.3f}")

    def __enter__(self) -> ProgressBar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


class GridProgress:
    """How many runs of a grid are done, and how long the others may take.

    The seconds of a step are those of the runs that ended, of the same data set if there are such; the
    rest of the grid is imagined to go in many ways with them, and eight of ten are between the two
    times that are told.

    Args:
        runs: of each its data set and its steps.
    """

    def __init__(self, runs: Sequence[tuple[Hashable, int]]) -> None:
        self.runs, self.left = runs, set(range(len(runs)))
        self.seen: dict[Hashable, list[float]] = {}
        self.workers, self.spent = 1, 0.0

    def ended(self, place: int, seconds: float | None = None, workers: int = 1) -> None:
        """A run is done.

        Args:
            seconds: that it took; None for an old record.
            workers: at once, by now.
        """
        self.left.discard(place)
        self.workers = max(1, workers)
        if seconds is not None:
            self.spent += seconds
            dataset, steps = self.runs[place]
            self.seen.setdefault(dataset, []).append(seconds / steps)

    def seconds_left(self) -> tuple[float, float] | None:
        """Between which two they are; None while too few runs have ended."""
        every = [each for seen in self.seen.values() for each in seen]
        if len(every) < min(ENOUGH, len(self.runs)):
            return None
        random = np.random.default_rng(0)
        ends = []
        for _ in range(WAYS):
            seconds = [
                steps * random.choice(self.seen.get(dataset, every))
                for dataset, steps in map(self.runs.__getitem__, sorted(self.left))
            ]
            ends.append(simulate(seconds, self.workers, random).seconds)
        return tuple(np.quantile(ends, (0.1, 0.9)))

    @property
    def is_long(self) -> bool:
        """Whether what is left takes more than a minute; while that is unknown, what is done."""
        return (self.seconds_left() or (self.spent,))[-1] > LONG

    def __str__(self) -> str:
        done = f"{len(self.runs) - len(self.left):,} of {len(self.runs):,} runs, {self.workers} at once"
        between = self.seconds_left()
        if between is None:
            return f"{done}; too early to say how long the others take"
        return f"{done}; {in_words(*between)} left"


def in_words(low: float, high: float | None = None) -> str:
    """A time in seconds, or two, in the unit that suits the longer one."""
    high = low if high is None else high
    unit, name = next(
        (u, n)
        for u, n in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if high >= 2 * u or u == 1
    )
    one, other = (
        f"{seconds / unit:.1f}" if seconds < 10 * unit else f"{seconds / unit:.0f}"
        for seconds in (low, high)
    )
    return f"{one} {name}" if one == other else f"{one} to {other} {name}"
