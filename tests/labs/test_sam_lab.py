"""What is the SAM lab's own: its scores, scenes, paper scale."""

from dataclasses import replace

import numpy as np
import pytest
from segment_anything import SamPredictor, sam_model_registry

from serial_lora_course.data.registry import load_segmentation
from serial_lora_course.labs import device
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.labs.sam import SamLab, picture_scores
from serial_lora_course.models.sam import SamBackbone, build_sam, load_sam
from tests.models.sam_models import SMALL_SAM, adapted_sam, sam_weights_file, segmentation_data


def by_hand(model, example) -> dict[str, float]:
    """One picture's scores with SAM's own predictor, object by object, pixel by pixel."""
    predictor = SamPredictor(model)
    predictor.set_image(np.asarray(example.picture))
    scores = {name: [] for name in ("dice", "iou", "dice_ce", "box_dice", "box_iou")}
    rows, columns = np.mgrid[: example.masks.shape[1], : example.masks.shape[2]]
    for truth, (x0, y0, x1, y1) in zip(example.masks, example.boxes, strict=True):
        box = np.asarray((x0, y0, x1, y1))
        (logits,), _, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
        filled = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
        for kind, found in (("", logits > 0), ("box_", filled)):
            both, areas = int((found & truth).sum()), int(found.sum() + truth.sum())
            scores[f"{kind}dice"].append(2 * both / areas)
            scores[f"{kind}iou"].append(both / (areas - both))
        inside = 1 / (1 + np.exp(-logits.astype(float)))
        entropy = -np.where(truth, np.log(inside), np.log(1 - inside)).mean()
        overlap = (2 * (inside * truth).sum() + 1e-5) / ((inside**2).sum() + truth.sum() + 1e-5)
        scores["dice_ce"].append(entropy + 1 - overlap)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def test_scores_are_those_of_sams_predictor_pixel_by_pixel():
    model, data = adapted_sam(), segmentation_data(test=6)
    scores = picture_scores(SamBackbone(model, "small", "tiny"), data)
    for number, picture in enumerate(data.test[index] for index in range(6)):
        hand = by_hand(model, picture)
        assert {name: values[number] for name, values in scores.items()} == pytest.approx(
            hand, abs=1e-5
        )
    assert 0 < scores["dice"].mean() < 1 and 0.5 < scores["box_dice"].mean() < 1


# --- end to end ----------------------------------------------------------------------------------


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
