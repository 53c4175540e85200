"""Makes the stored runs again: ``python -m serial_lora_course.lessons.l05_sam.runs``, some twenty minutes.

It runs the solved lesson's own cells, and trains with each mistake, with boxes that are moved, on the scenes alone
that are not nearly square, and with the boxes alone that stay in the picture when they are moved, or do not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from serial_lora_course.checking.solved import cells_before
from serial_lora_course.lessons.l05_sam.scores import recall_precision_and_inside

RUNS = Path(__file__).with_name("runs.csv")
OTHER_SEEDS = 2, 3


def read_runs() -> dict[str, np.ndarray]:
    """Name of a training -> Dice with its mistake, mended Dice and mended recall, (seeds, 3)."""
    rows: dict[str, list] = {}
    for line in RUNS.read_text(encoding="utf-8").splitlines()[1:]:
        name, _, *numbers = line.rsplit(",", 4)
        rows.setdefault(name.strip('"'), []).append([*map(float, numbers)])
    return {name: np.array(each) for name, each in rows.items()}


def only(trip: tuple[Callable, Callable], keep: Callable) -> tuple[Callable, Callable]:
    """The trip on which SAM is asked only about the things that `keep`, scene -> bool (N,), keeps."""

    def there(each):
        ready, kept = trip[0](each), keep(each)
        return ready._replace(boxes=ready.boxes[kept], truth=ready.truth[kept])

    return there, trip[1]


def main() -> None:
    lesson = cells_before(
        "05", "from serial_lora_course.lessons.l05_sam.figures import plot_shares"
    )
    trips, right, always = lesson["TRIPS"], lesson["RIGHT"], lesson["ALWAYS"]
    on = {"": lesson["scenes"], ", uneven": lesson["uneven"]}
    runs = [(name, "", seed) for name in trips for seed in OTHER_SEEDS]
    runs += [(name, "", seed) for name in lesson["MOVED"] for seed in (1, 2)]
    runs += [(name, ", uneven", seed) for name in (lesson["PADDING"], right) for seed in (1, 2)]
    trips |= lesson["MOVED"]
    for part, stays in ((", only inside", True), (", only outside", False)):

        def keep(each, stays=stays):
            return (lesson["of_box"](each, trips[always]) >= 0.5) == stays

        trips[always + part] = only(trips[always], keep)
        on[part] = [each for each in on[""] if keep(each).any()]
        runs += [(always, part, seed) for seed in (1, 2)]
    lines = ["name,seed,with it,mended,recall"]
    for name, part, seed in runs:
        lesson["scenes"] = on[part]
        learnt = lesson["adapt"](name + part if name + part in trips else name, seed)
        answers = lesson["ask"](learnt.model, tuple({name: 0, right: 0}))
        marked = {how: lesson["marked"](answers[how]) for how in (name, right)}
        dice = [lesson["dice_of_scenes"](marked[how]).mean() for how in (name, right)]
        recall = recall_precision_and_inside(marked[right], lesson["tests"])[0]
        lines.append(f'"{name}{part}",{seed},{dice[0]:.4f},{dice[1]:.4f},{recall:.2f}')
        RUNS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
