"""Makes the recorded draws again: ``python -m serial_lora_course.lessons.l12_your_own.records``, some minutes.

It runs the solved lesson's own cells, trains on her counter in each draw, and cuts out in draws 1 and 2.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from torch import Tensor

from serial_lora_course.checking.solved import cells_before

HER = "her counter"


def train_on_her_counter(lesson: SimpleNamespace, draw: int) -> dict[str, Tensor]:
    """Film every thing once more, and train on both folders: way -> where it is right."""
    objects, labels, files = lesson.objects, lesson.labels, lesson.files
    splits = [lesson.split_things(objects, labels.tolist(), 0.25, each) for each in range(3)]
    held_out = {objects[i] for _, test in splits for i in test}
    with tempfile.TemporaryDirectory() as folder:
        lesson.film(Path(folder), [lesson.TESTS[HER]], sorted(set(objects) - held_out))
        second = [Image.open(Path(folder, f.parent.name, f.name)).convert("RGB") for f in files]
    both = torch.cat([lesson.inputs, lesson.prepared(second)]), labels.repeat(2), objects * 2
    torch.manual_seed(draw)
    adapter, test, _ = lesson.folder_to_model(lesson.vision, *both, 2 * lesson.STEPS, draw)
    train = sorted(set(range(len(both[0]))) - set(test))
    probe = lesson.linear_probe(lesson.encode(both[0])[train], both[1][train])
    said = lesson.answers(HER, draw, probe, adapter)
    return {way: each == lesson.numbers[HER] for way, each in said.items()}


def main() -> None:
    lesson, lines = SimpleNamespace(**cells_before("12", "cuts = ")), []
    runs = [(HER, train_on_her_counter(lesson, draw)) for draw in range(3)]
    runs += [("cutting out", lesson.cut_out(draw)[0]) for draw in (1, 2)]
    for case, ways in runs:
        for way, found in ways.items():
            scores = [f"{each:.4g}" for each in found.double().tolist()]
            lines.append(",".join([case, way, *scores]))
    Path(__file__).with_name("runs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
