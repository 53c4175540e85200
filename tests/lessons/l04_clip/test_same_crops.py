"""All methods of the lesson see the same crops in the same batches: an untrained adapter changes no loss."""

import json
import re

from tools import ROOT


def test_the_first_step_has_one_loss_whatever_learns():
    notebook = json.loads((ROOT / "solutions/04_clip_few_shot.ipynb").read_text(encoding="utf-8"))
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    drawn = "".join("".join(out.get("data", {}).get("text/plain", "")) for out in outputs)
    losses = {shots: re.findall(rf"{shots}-shot: first loss ([\d.]+)", drawn) for shots in (1, 16)}
    assert all(len(each) == 3 and len(set(each)) == 1 for each in losses.values()), losses
