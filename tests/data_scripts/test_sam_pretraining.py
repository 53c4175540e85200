"""Pretraining of the tiny SAM: what it may see, what its losses are, how it goes on."""

import csv
import json
import math
from dataclasses import asdict, replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_scripts.pretraining import loop
from data_scripts.pretraining import sam as pretraining
from data_scripts.pretraining.sam import (
    Recipe,
    SamPretraining,
    decode,
    dense_loss,
    jittered,
    mask_loss,
    pad,
    point_in,
)
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.photographs import PHOTOGRAPHS, photographs
from serial_lora_course.data.scenes import Scene, box_of
from serial_lora_course.models.sam import build_sam
from tests.labs.lab_models import same_tensors
from tests.models.sam_models import SMALL_SAM, small_sam

SIZE = 64
SMALL = SMALL_SAM | {"image_size": SIZE, "window": 3}
RECIPE = Recipe(minutes=8 / 60, batch=3, prompts=3)  # eight steps of the clock below


@pytest.fixture
def small(monkeypatch):
    """Pretraining of a small model by a clock on which every step takes one second."""
    monkeypatch.setattr(pretraining, "tiny_architecture", lambda: dict(SMALL))
    monkeypatch.setattr(pretraining, "MEASURED_SCENES", 2)
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    monkeypatch.setattr(loop, "FIRST_MEASURE", 1.5)
    monkeypatch.setattr(loop, "BETWEEN_MEASURES", 1.5)


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


def test_scenes_are_square_with_or_without_a_border(run):
    chance = np.random.default_rng(0)
    scenes = [run._scene(chance) for _ in range(40)]
    assert all(scene.picture.shape == (SIZE, SIZE, 3) for scene in scenes)
    assert all(scene.masks.shape[1:] == (SIZE, SIZE) for scene in scenes)
    bordered = [not scene.picture[-1].any() or not scene.picture[:, -1].any() for scene in scenes]
    assert 3 <= sum(bordered) <= 20  # a quarter, by chance


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


def test_light_and_tint_are_drawn_for_each_picture(run):
    scene = Scene(np.full((SIZE, SIZE, 3), 100, np.uint8), np.ones((1, SIZE, SIZE), bool), (0,))
    seen = run._pictures([scene] * 6, np.random.default_rng(0))
    colours = seen * run.model.pixel_std + run.model.pixel_mean
    assert len({round(value, 3) for value in colours[:, 0, 0, 0].tolist()}) == 6
    assert colours.min() >= 100 * 0.7 * 0.85 - 0.01 and colours.max() <= 100 * 1.3 * 1.15 + 0.01
    assert colours.flatten(2).std(-1).max() < 1e-3  # one light for the whole picture


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


def test_a_finer_truth_is_averaged_to_the_masks_resolution():
    chance = np.random.default_rng(0)
    masks, quality = (
        torch.from_numpy(chance.standard_normal((2, 4, 5, 5))),
        torch.zeros(2, 4).double(),
    )
    truth = (chance.random((2, 20, 20)) < 0.5).astype(float)
    coarse = truth.reshape(2, 5, 4, 5, 4).mean((2, 4))
    is_point = torch.tensor([False, True])
    losses = [
        mask_loss(masks, quality, torch.from_numpy(t), is_point, 0.0).item()
        for t in (truth, coarse)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


def test_only_the_best_of_a_points_three_masks_is_told():
    masks = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    truth = (masks[:, 2] > 0).float().detach()  # the third mask has the shape already
    loss = mask_loss(masks, torch.zeros(1, 4), truth, torch.tensor([True]), 0.0)
    (gradient,) = torch.autograd.grad(loss, masks)
    told = [bool(gradient[0, k].any()) for k in range(4)]
    assert told == [True, False, True, False]
    loss = mask_loss(masks, torch.zeros(1, 4), truth, torch.tensor([False]), 0.0)
    (gradient,) = torch.autograd.grad(loss, masks)
    assert [bool(gradient[0, k].any()) for k in range(4)] == [True, False, False, False]


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


# --- small parts ---------------------------------------------------------------------------------


def test_a_border_goes_below_and_to_the_right():
    scene = Scene(np.full((4, 6, 3), 9, np.uint8), np.ones((2, 4, 6), bool), (3, 1))
    padded = pad(scene, 8)
    assert padded.picture.shape == (8, 8, 3) and padded.masks.shape == (2, 8, 8)
    assert (padded.picture[:4, :6] == 9).all() and padded.picture.sum() == 9 * 72
    assert padded.masks.sum() == 48 and padded.masks[:, :4, :6].all() and padded.drawings == (3, 1)


def test_a_point_lies_in_its_mask_and_anywhere_in_it():
    mask = np.zeros((5, 7), bool)
    mask[1, 2:5] = mask[3, 6] = True
    chance = np.random.default_rng(0)
    found = {tuple(point_in(mask, chance).astype(int).tolist()) for _ in range(60)}
    assert found == {(2, 1), (3, 1), (4, 1), (6, 3)}


def test_jittered_boxes_stay_boxes_in_the_picture():
    chance, box = np.random.default_rng(0), np.asarray([3, 0, 9, 20], np.float32)
    boxes = np.stack([jittered(box, 0.2, 20, chance) for _ in range(300)])
    assert (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 20
    assert boxes.std(0)[[0, 2]] == pytest.approx(0.2 * 6, rel=0.2)
    assert np.array_equal(jittered(box, 0.0, 20, chance), box)


# --- a run ---------------------------------------------------------------------------------------


def test_a_few_steps_on_the_same_scenes_lower_the_loss(run):
    run.budget = 10**6
    run.seconds = 0.2 * run.budget  # past the warm-up
    losses = [run.one_step() for _ in range(20)]  # the step's number stays, so the scenes do
    assert losses[-1] < losses[0] - 0.1 and np.isfinite(losses).all()


@pytest.mark.slow
def test_every_parameter_but_the_mask_prompts_is_trained(run):
    """Of the three masks for points only those are told that were the best of some point."""
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.recipe = replace(RECIPE, points=0.7)
    run.seconds = 0.2 * run.budget
    for run.step in range(3):  # three different batches
        run.one_step()
    still = {n for n, p in run.model.named_parameters() if torch.equal(p, before[n])}
    further = [f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3)]
    assert not all(any(name.startswith(f) for name in still) for f in further)
    rest = {name for name in still if not name.startswith(tuple(further))}
    assert rest and all("mask_downscaling" in name for name in rest)


def test_a_step_depends_on_its_number_and_the_seed_alone(small, tmp_path):
    states = []
    for folder, scramble in (("one", 1), ("two", 2)):
        run = SamPretraining(tmp_path / folder, RECIPE)
        torch.manual_seed(scramble)
        run.step = 3
        run.one_step()
        states.append(run.trained.state_dict())
    assert same_tensors(*states)


@pytest.mark.slow
def test_the_card_is_complete_and_the_weights_are_those_of_the_run(small, tmp_path):
    folder = tmp_path / "made"
    SamPretraining(folder, RECIPE).run()
    files = {path.name for path in folder.iterdir()}
    assert files == {"checkpoint.pt"} | {
        f"tiny-sam.{ending}" for ending in ("safetensors", "json", "card.json", "curve.csv")
    }
    assert json.loads((folder / "tiny-sam.json").read_text()) == SMALL
    card = json.loads((folder / "tiny-sam.card.json").read_text())
    assert card["model"] == "tiny-sam" and card["steps"] == 8
    assert card["recipe"] == asdict(RECIPE)
    assert card["command"].startswith("python data_scripts/pretrain_tiny.py sam --minutes 0.133")
    assert card["data"]["photographs"] == list(PHOTOGRAPHS["train"])
    measured = {
        f"{style} {kind}"
        for style in ("twemoji", "openmoji")
        for kind in ("box Dice", "point Dice", "filled box Dice")
    }
    assert set(card["measured"]) == measured | {"what"}
    assert all(0 <= card["measured"][name] <= 1 for name in measured)
    assert card["limits"] and card["weights_licence"] and card["licences"] and card["machine"]

    with (folder / "tiny-sam.curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["step"]) for row in rows] == sorted(float(row["step"]) for row in rows)
    assert {name: float(rows[-1][name]) for name in measured} == {
        name: card["measured"][name] for name in measured
    }
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    weights = load_file(folder / "tiny-sam.safetensors")
    model = build_sam(**SMALL)
    assert weights.keys() == model.state_dict().keys()  # nothing of what is thrown away
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert all(torch.equal(weight, kept[f"0.{name}"].half()) for name, weight in weights.items())


@torch.no_grad()
def test_measures_are_means_of_dice_over_unseen_scenes(run, monkeypatch):
    """A decoder that finds the box, and nothing for a point, scores as the filled box and as 0."""

    def finds_the_box(model, embedding, coordinates, is_point):
        masks = torch.full((len(coordinates), 4, SIZE, SIZE), -9.0)
        for mask, corners, point in zip(masks, coordinates, is_point, strict=True):
            (x0, y0), (x1, y1) = corners.int().tolist()
            if not point:
                mask[:, y0:y1, x0:x1] = 9.0
        return masks, torch.zeros(len(coordinates), 4)

    asked = []
    monkeypatch.setattr(pretraining, "decode", finds_the_box)
    monkeypatch.setattr(
        pretraining, "photographs", lambda split: asked.append(split) or photographs(split)
    )
    measured = run.measure()
    assert set(asked) == {"test"}
    for style in ("twemoji", "openmoji"):
        assert 0 < measured[f"{style} box Dice"] == measured[f"{style} filled box Dice"] < 1
        assert measured[f"{style} point Dice"] == 0
    assert run.measure() == measured  # the same scenes every time
