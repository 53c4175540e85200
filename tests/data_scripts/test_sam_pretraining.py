"""Pretraining of the tiny SAM: what it may see, and what its losses are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_scripts.pretraining import sam as pretraining
from data_scripts.pretraining.sam import Recipe, SamPretraining, decode, dense_loss, mask_loss
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.photographs import PHOTOGRAPHS, photographs
from serial_lora_course.data.scenes import Scene, box_of
from tests.labs.lab_models import same_tensors
from tests.models.sam_models import SMALL_SAM, small_sam

SIZE = 64
SMALL = SMALL_SAM | {"image_size": SIZE, "window": 3}
RECIPE = Recipe(minutes=8 / 60, batch=3, prompts=3)  # eight steps of the clock below


@pytest.fixture
def small(monkeypatch, clock):
    """Pretraining of a small model by a clock on which every step takes one second."""
    monkeypatch.setattr(pretraining, "tiny_architecture", lambda: dict(SMALL))
    monkeypatch.setattr(pretraining, "MEASURED_SCENES", 2)


@pytest.fixture
def run(small, tmp_path):
    return SamPretraining(tmp_path / "run", RECIPE)


# --- what it sees --------------------------------------------------------------------------------


def test_no_hidden_drawing_and_no_test_photograph_is_seen(run):
    hidden = hidden_codepoints()
    seen = {drawing.tobytes() for drawing in run.drawings}
    visible = 0
    for concept, drawing in zip(run.twemoji.concepts, run.twemoji.pictures, strict=True):
        if concept.codepoints not in hidden:
            visible += 1
            assert drawing.tobytes() in seen
    assert len(run.drawings) == visible < len(run.twemoji)
    behind = {photograph.tobytes() for photograph in run.backgrounds}
    assert not behind & {photograph.tobytes() for photograph in photographs("test")}
    assert len(behind) == len(PHOTOGRAPHS["train"])


def test_prompts_are_boxes_and_points_of_the_masks_they_ask_for(run):
    chance = np.random.default_rng(1)
    run.recipe = replace(RECIPE, prompts=6, points=0.5, jitter=0.0)
    points = 0
    for _ in range(15):
        scene = run._scene(chance)
        coordinates, is_point, masks = run._prompts(scene, chance)
        assert coordinates.shape == (6, 2, 2) and coordinates.dtype == np.float32
        asked = {mask.tobytes() for mask in masks}
        assert len(asked) == min(6, len(scene.masks))  # every object has its turn
        for place, point, mask in zip(coordinates, is_point, masks, strict=True):
            if point:
                x, y = place[0].astype(int)
                assert mask[y, x]
                points += 1
            else:
                assert np.array_equal(place.reshape(4), box_of(mask))
    assert 25 <= points <= 65


def test_pictures_are_normalised_as_sam_does(run):
    chance = np.random.default_rng(2)
    scenes = [run._scene(chance) for _ in range(8)]
    pictures = torch.from_numpy(np.stack([s.picture for s in scenes])).permute(0, 3, 1, 2).float()
    found = run._normalize(pictures, scenes)
    for picture, scene, normalised in zip(pictures, scenes, found, strict=True):
        inside = scene.picture.any(2)
        height, width = np.flatnonzero(inside.any(1))[-1] + 1, np.flatnonzero(inside.any(0))[-1] + 1
        expected = run.model.preprocess(picture[:, :height, :width])
        where = torch.from_numpy(inside).expand(3, -1, -1)
        torch.testing.assert_close(normalised[where], expected[where])
        assert (normalised[:, height:] == 0).all() and (normalised[:, :, width:] == 0).all()


# --- the decoder ---------------------------------------------------------------------------------


@torch.no_grad()
def test_decoding_many_pictures_at_once_is_mask_decoders_own_result():
    model = small_sam()
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(5, 16, 5, 5, generator=generator)
    coordinates = 40 * torch.rand(5, 2, 2, generator=generator).sort(1).values
    is_point = torch.tensor([True, False, True, False, False])
    masks, quality = decode(model, embeddings, coordinates, is_point)
    assert masks.shape == (5, 4, 20, 20) and quality.shape == (5, 4)
    for i in range(5):
        point = coordinates[i : i + 1, :1], torch.ones(1, 1)
        sparse, dense = model.prompt_encoder(
            points=point if is_point[i] else None,
            boxes=None if is_point[i] else coordinates[i].reshape(1, 4),
            masks=None,
        )
        expected = model.mask_decoder.predict_masks(
            embeddings[i : i + 1], model.prompt_encoder.get_dense_pe(), sparse, dense
        )
        torch.testing.assert_close(masks[i : i + 1], expected[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(quality[i : i + 1], expected[1], atol=1e-5, rtol=1e-4)


# --- losses --------------------------------------------------------------------------------------


def plain_mask_loss(masks, quality, truth, is_point, weight) -> float:
    """One prompt after the other, one pixel after the other."""
    total, guesses = 0.0, []
    for n in range(len(masks)):
        each = []
        for k in range(4):
            entropy = overlap = area = found = common = 0.0
            for logit, target in zip(masks[n, k].flatten(), truth[n].flatten(), strict=True):
                inside = 1 / (1 + math.exp(-logit))
                entropy -= target * math.log(inside) + (1 - target) * math.log(1 - inside)
                overlap, area = overlap + inside * target, area + inside + target
                found, common = found + (logit > 0), common + (logit > 0) * target
            each.append(entropy / truth[n].size + 1 - (2 * overlap + 1) / (area + 1))
            either = found + truth[n].sum() - common
            guesses.append((quality[n, k] - common / max(either, 1)) ** 2)
        total += each[0] + (min(each[1:]) if is_point[n] else 0)
    return total / len(masks) + weight * sum(guesses) / len(guesses)


@pytest.mark.parametrize("seed", range(2))
def test_the_mask_loss_pixel_by_pixel(seed):
    chance = np.random.default_rng(seed)
    masks = 3 * chance.standard_normal((3, 4, 5, 5))
    quality = chance.random((3, 4))
    truth = (chance.random((3, 5, 5)) < 0.4).astype(float)
    truth[2] = 0  # nothing of it is left at this resolution
    is_point = np.asarray([True, False, True])
    tensors = [torch.from_numpy(a) for a in (masks, quality, truth, is_point)]
    loss = mask_loss(*tensors, iou_weight=0.3).item()
    assert loss == pytest.approx(plain_mask_loss(masks, quality, truth, is_point, 0.3), abs=1e-6)


def test_the_dense_loss_tells_figure_from_ground_and_where_objects_touch():
    masks = np.zeros((2, 6, 6), bool)
    masks[0, 1:4, 1:3] = True
    masks[1, 1:4, 3:5] = True  # touches the first
    scene = Scene(np.zeros((6, 6, 3), np.uint8), masks, (0, 1))
    label = masks[0] * 1 + masks[1] * 2
    target = np.zeros((2, 6, 6))
    for y in range(6):
        for x in range(6):
            target[0, y, x] = label[y, x] > 0
            left = x > 0 and label[y, x] != label[y, x - 1]
            above = y > 0 and label[y, x] != label[y - 1, x]
            target[1, y, x] = left or above
    assert target[1, 2, 3] == 1  # where one object meets the other
    maps = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    inside = maps.sigmoid().numpy()[0]
    expected = -(target * np.log(inside) + (1 - target) * np.log(1 - inside)).mean()
    assert dense_loss(maps.float(), [scene]).item() == pytest.approx(expected, abs=1e-6)


# --- a run ---------------------------------------------------------------------------------------


def test_a_step_depends_on_its_number_and_the_seed_alone(small, tmp_path):
    states = []
    for folder, scramble in (("one", 1), ("two", 2)):
        run = SamPretraining(tmp_path / folder, RECIPE)
        torch.manual_seed(scramble)
        run.step = 3
        run.one_step()
        states.append(run.trained.state_dict())
    assert same_tensors(*states)
