"""The progress bar of a training. Nothing here is needed to understand the training loop."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


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
