"""FID, KID and CLIP-Score: as torchmetrics has them, and in numpy."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from serial_lora_course.measures.pictures import clip_score, frechet_distance, kernel_distance

MEASURES = [frechet_distance, kernel_distance]


def sample(count: int, width: int, seed: int) -> torch.Tensor:
    """Correlated normal features about a mean of their own."""
    chance = np.random.default_rng(seed)
    mix = chance.normal(size=(width, width))
    return torch.from_numpy(chance.normal(size=(count, width)) @ mix + chance.normal(size=width))


class Given(torch.nn.Identity):
    """Stands where torchmetrics has a network: the features are computed already."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.num_features = features.shape[1]


def torchmetrics_of(metric, features: torch.Tensor, reference: torch.Tensor):
    metric.update(reference, real=True)
    metric.update(features, real=False)
    return metric.compute()


@pytest.mark.parametrize(("pictures", "others", "width"), [(40, 50, 4), (7, 9, 20)])
def test_fid_is_torchmetrics_also_of_fewer_pictures_than_dimensions(pictures, others, width):
    """As in all of the paper's tables: covariances are singular then."""
    features, reference = sample(pictures, width, 0), sample(others, width, 1)
    metric = FrechetInceptionDistance(Given(features)).set_dtype(torch.float64)
    theirs = torchmetrics_of(metric, features, reference).item()
    assert frechet_distance(features, reference) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_of_many_parts_is_torchmetrics_with_the_same_parts():
    features, reference = sample(21, 3, 0), sample(30, 3, 1)
    found = kernel_distance(features, reference, subsets=20, seed=5)
    metric = KernelInceptionDistance(Given(features), subsets=20, subset_size=10)
    torch.manual_seed(5)
    theirs, _ = torchmetrics_of(metric, features, reference)
    assert found == pytest.approx(theirs.item())
    assert found != kernel_distance(features, reference, subsets=20, seed=6)


@pytest.mark.parametrize("measure", MEASURES)
def test_features_of_less_precision_are_compared_in_float64(measure):
    """Far from the origin float32's seven digits would not hold a covariance."""
    far = [1000 + sample(20, 3, seed).half().float() for seed in (0, 1)]
    assert measure(*far) == measure(*(features.double() for features in far))


def test_clip_score_in_numpy():
    images, texts = sample(50, 6, 0), sample(50, 6, 1)
    one, other = images.numpy(), texts.numpy()
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    expected = 2.5 * np.maximum(cosine, 0)
    for precision in (torch.float64, torch.float32):
        scores = clip_score(9 * images.to(precision), texts.to(precision) / 7)  # directions count
        assert scores.dtype == torch.float32 and (scores == 0).any()
        np.testing.assert_allclose(scores, expected, atol=1e-5)
