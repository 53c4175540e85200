"""What is the SD3 lab's own: what drawings are worth, the streams, the official layout."""

import math

import numpy as np
import pytest
import torch

from serial_lora_course.measures.pictures import frechet_distance
from tests.labs.small_labs import COLOURS, small_lab
from tests.models.sd3_models import official_folder


@pytest.fixture
def small(monkeypatch, tmp_path):
    return small_lab("sd3", monkeypatch, tmp_path / "models")


def test_scores_are_the_judges_on_all_pictures(small):
    drawn = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    scores = small.lab().score(drawn)
    assert scores.keys() == {"fid", "kid", "clip_score", "style_share"}
    features = drawn.reshape(6, -1, 3).mean(1)
    real = np.asarray([COLOURS[i % 5] for i in range(6)], float)
    expected = frechet_distance(torch.tensor(features), torch.tensor(real))
    assert scores["fid"] == pytest.approx(expected, rel=1e-4)
    assert scores["clip_score"] == pytest.approx(features.mean() / 255, rel=1e-4)
    assert scores["style_share"] == pytest.approx((features.mean(1) < 128).mean())


def test_base_measures_are_the_unadapted_models_and_real_pictures(small):
    lab = small.lab()
    base, (scores, _) = lab.measure_base(), lab.measure()
    assert {k: v for k, v in base.items() if k.startswith("base_")} == {
        f"base_{name}": value for name, value in scores.items()
    }
    # The first six training pictures have the colours of the six held-out ones.
    assert base["real_fid"] == pytest.approx(0, abs=1e-3)


def test_a_folder_in_the_official_layout_takes_the_same_way(small, tmp_path):
    """Shift 3, 16 latent channels, T5, bfloat16 weights: paper scale, but for the sizes."""
    options = dict(scale="paper", resolution=32, accumulation=2)
    (record,) = small.run(weights=official_folder(tmp_path / "sd3"), **options)
    assert all(math.isfinite(value) for value in record.measures.values())
    assert record.settings["gradient_checkpointing"] and record.settings["guidance"] == 7.0
