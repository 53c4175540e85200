"""Makes the recorded draws again: ``python -m serial_lora_course.lessons.l12_your_own.records``, some minutes.

It runs the solved lesson's own cells, and trains for each counter, and cuts out, in each draw.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from serial_lora_course.checking.solved import cells_before


def main() -> None:
    lesson, lines = SimpleNamespace(**cells_before("12", "cuts = ")), []

    def note(case: str, draw: int, ways: dict) -> None:
        for way, found in ways.items():
            scores = [f"{each:.4g}" for each in found.double().tolist()]
            lines.append(";".join([case, str(draw), way, *scores]))

    for draw in lesson.DRAWS:
        own = lesson.trained(lesson.inputs, lesson.labels, lesson.objects, draw)
        for test in ("unseen", *lesson.TESTS):
            note(f"Ada's frames, {test}", draw, own[test])
        for test in ("on wood", "touching on wood"):
            found = lesson.fitted(test, draw)
            note(f"fitted, {test}", draw, found[test])
            learnt = {
                way: each.double().mean(0, keepdim=True) for way, each in found["training"].items()
            }
            note(f"fitted, {test}, training", draw, learnt)
        note("cutting out", draw, lesson.cut_out(draw)[0])
        print(draw, flush=True)
    Path(__file__).with_name("runs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
