"""Makes the stored runs again: ``python -m serial_lora_course.lessons.l05_sam.runs``, some fifteen minutes.

It runs the solved lesson's own cells, and trains with each mistake, with boxes that are moved, and on the scenes
alone that are not nearly square.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from serial_lora_course.checking.solved import cells_before

RUNS = Path(__file__).with_name("runs.csv")
OTHER_SEEDS = 2, 3


def read_runs() -> dict[str, np.ndarray]:
    """Name of a training -> Dice with its mistake, mended Dice and mended recall, (seeds, 3)."""
    rows: dict[str, list] = {}
    for line in RUNS.read_text(encoding="utf-8").splitlines()[1:]:
        name, _, *numbers = line.rsplit(",", 4)
        rows.setdefault(name.strip('"'), []).append([*map(float, numbers)])
    return {name: np.array(each) for name, each in rows.items()}


def main() -> None:
    lesson = cells_before(
        "05", "from serial_lora_course.lessons.l05_sam.figures import plot_shares"
    )
    trips, right, all_scenes = lesson["TRIPS"], lesson["RIGHT"], lesson["scenes"]
    lines = ["name,seed,with it,mended,recall"]
    runs = [(name, "", seed) for name in trips for seed in OTHER_SEEDS]
    runs += [(name, "", seed) for name in lesson["MOVED"] for seed in (1, 2)]
    runs += [(name, ", uneven", seed) for name in (lesson["PADDING"], right) for seed in (1, 2)]
    trips |= lesson["MOVED"]
    for name, on, seed in runs:
        lesson["scenes"] = lesson["uneven"] if on else all_scenes
        answers = lesson["ask"](lesson["adapt"](name, seed).model, tuple({name: 0, right: 0}))
        dice = [
            lesson["dice_of_scenes"](lesson["marked"](answers[how])).mean() for how in (name, right)
        ]
        recall = re.findall(
            r"\d+", lesson["recall_and_precision"](lesson["marked"](answers[right]))
        )[0]
        lines.append(f'"{name}{on}",{seed},{dice[0]:.4f},{dice[1]:.4f},{int(recall) / 100}')
        RUNS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
