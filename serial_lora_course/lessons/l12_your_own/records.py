"""Makes the recorded draws again: ``python -m serial_lora_course.lessons.l12_your_own.records``, some minutes.

It runs the solved lesson's own cells, and trains for each counter, and cuts out, in each draw.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from serial_lora import SerialLoRAConfig
from serial_lora_course.checking.solved import cells_before
from serial_lora_course.labs import sam as lab
from serial_lora_course.labs.lab import adapted
from serial_lora_course.labs.training import train
from serial_lora_course.measures.metrics import dice
from serial_lora_course.models.sam import load_sam


def cut_out(draw: int) -> dict[str, Tensor]:
    """Way -> Dice of each of lesson 05's test scenes; each draw learns from other scenes."""
    scenes = lab.load_segmentation("photographs")
    cutting = lab.SamLab(load_sam("tiny"), scenes, lab.TINY)
    chosen = cutting.indices(scenes, 20, draw)  # per cent of the training scenes
    few = [scenes.train[i] for i in chosen]
    tests = [scenes.test[i] for i in range(len(scenes.test))]

    def logits_of(some: list) -> list[Tensor]:
        return [lab.predict_masks(cutting.backbone, e.picture, e.boxes)[1] for e in some]

    def dice_of(logits: list[Tensor], some: list, threshold: float = 0.0) -> Tensor:
        pairs = zip(logits, (torch.as_tensor(each.masks) for each in some), strict=True)
        return torch.stack([dice(each > threshold, true).mean() for each, true in pairs])

    by_sam, known = logits_of(tests), logits_of(few)
    lower = max((-3, -2, -1, 0), key=lambda each: dice_of(known, few, each).mean())
    found = {"SAM": dice_of(by_sam, tests)}
    found["SAM at a lower threshold"] = dice_of(by_sam, tests, lower)
    with adapted(cutting.backbone.model, SerialLoRAConfig(rank=lab.TINY.rank), draw):
        stream = cutting.stream(chosen, draw)
        settings = lab.TINY.training(stream.steps, 1, draw)
        train(cutting.objective(), stream, settings, progress=False)
        found["adapter"] = dice_of(logits_of(tests), tests)
    return found


def main() -> None:
    lesson, lines = SimpleNamespace(**cells_before("12", "first = fitted(")), []

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
        note("cutting out", draw, cut_out(draw))
        print(draw, flush=True)
    Path(__file__).with_name("runs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
