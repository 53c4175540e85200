"""What is the SAM lab's own: its scores, scenes, paper scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry

from serial_lora_course.data.registry import load_segmentation
from serial_lora_course.labs import device
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.labs.sam import SamLab, picture_scores
from serial_lora_course.measures.metrics import dice, dice_ce, iou
from serial_lora_course.models.sam import SamBackbone, build_sam, load_sam
from tests.models.sam_models import SMALL_SAM, adapted_sam, sam_weights_file, segmentation_data


def by_hand(model, example) -> dict[str, float]:
    """One picture's scores with SAM's own predictor, object by object."""
    predictor, scores = SamPredictor(model), []
    predictor.set_image(np.asarray(example.picture))
    for truth, box in zip(example.masks, np.asarray(example.boxes), strict=True):
        (logits,), _, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
        x0, y0, x1, y1 = box.astype(int)
        filled = np.zeros_like(truth)
        filled[y0:y1, x0:x1] = True
        values = [*(score(logits > 0, truth) for score in (dice, iou))]
        values += [score(filled, truth) for score in (dice, iou)]
        values.append(dice_ce(torch.from_numpy(logits).double(), torch.from_numpy(truth)))
        scores.append([float(value) for value in values])
    names = ("dice", "iou", "box_dice", "box_iou", "dice_ce")
    return dict(zip(names, np.mean(scores, axis=0), strict=True))


def test_scores_are_those_of_sams_predictor():
    model, data = adapted_sam(), segmentation_data(test=6)
    scores = picture_scores(SamBackbone(model, "small", "tiny"), data)
    for number, picture in enumerate(data.test[index] for index in range(6)):
        hand = by_hand(model, picture)
        assert {name: values[number] for name, values in scores.items()} == pytest.approx(
            hand, abs=1e-5
        )
    assert 0 < scores["dice"].mean() < 1 and 0.5 < scores["box_dice"].mean() < 1


def test_the_shipped_weights_reach_what_the_records_call_not_adapted():
    measured = SamLab(load_sam("tiny"), load_segmentation("lines")).measure_base()
    told = next(r.measures for r in shipped_records("sam") if r.dataset == "lines")
    for measure, value in measured.items():
        assert value == pytest.approx(told[measure], abs=2e-3), measure


def test_the_paper_scale_runs_end_to_end(monkeypatch, tmp_path):
    """With the small model in ViT-B's place; pictures come through workers."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: build_sam(**SMALL_SAM))
    monkeypatch.setattr(device.os, "cpu_count", lambda: 1)
    data = replace(segmentation_data(train=4, test=3), scale="paper")
    monkeypatch.setattr(SamLab, "load_data", staticmethod(lambda *_: data))
    weights = sam_weights_file(tmp_path / "vit_b.safetensors")
    options = {"scale": "paper", "weights": weights, "rank": 4}
    (record,) = run_lab("sam", "icecream", "lora_equal_budget", 50, 1, **options)
    assert record.scale == "paper" and record.settings["model_name"] == "vit_b"
    assert record.settings["gradient_checkpointing"] and record.settings["batch_size"] == 1
    assert record.sizes["steps"] == 5 * 2  # epochs times pictures, one a step
