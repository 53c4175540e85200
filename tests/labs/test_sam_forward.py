"""The SAM lab's forward pass: segment-anything's results, with gradients, right to the pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serial_lora.config import SerialLoRAConfig
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs import sam as lab
from serial_lora_course.labs.sam import SamObjective, original_size_logits, predict_logits
from serial_lora_course.labs.sam_inputs import PreparedExample, jitter_boxes, prepare
from serial_lora_course.measures.metrics import dice_ce
from tests.models.sam_models import ODD_SIZES, SMALL_SAM, adapted_sam, example

SIDE = SMALL_SAM["image_size"]


@pytest.fixture(scope="module")
def model():
    """A small SAM with a filled adapter. Read only."""
    return adapted_sam()


def batch():
    """Pictures of every odd size with one, two or three boxes."""
    return [prepare(example(s, 1 + i % 3, i), SIDE) for i, s in enumerate(ODD_SIZES)]


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


# --- segment-anything's own results --------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 5, 100])
def test_the_training_forward_is_sams_forward(model, together, monkeypatch):
    """However many boxes are decoded together, whatever pictures they are in."""
    monkeypatch.setattr(lab, "BOXES_AT_ONCE", together)
    prepared = batch()
    assert len({len(p.boxes) for p in prepared}) == 3
    ours = predict_logits(model, prepared)
    records = [
        {"image": p.picture, "boxes": p.boxes, "original_size": p.original_size} for p in prepared
    ]
    theirs = model(records, multimask_output=False)
    for logits, result, p in zip(ours, theirs, prepared, strict=True):
        assert logits.requires_grad and logits.dtype == torch.float32
        torch.testing.assert_close(logits, result["low_res_logits"])
        masks = original_size_logits(model, logits, p) > model.mask_threshold
        assert masks.shape == (len(p.boxes), *p.original_size)
        assert torch.equal(masks, result["masks"][:, 0])
    assert any(0 < result["masks"].float().mean() < 1 for result in theirs)


def test_the_loss_is_dice_ce_of_the_part_that_is_no_padding(model):
    p = prepare(example((37, 29), objects=2), SIDE)
    (logits,) = predict_logits(model, [p])
    wide = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode="bilinear")
    height, width = p.input_size
    expected = dice_ce(wide[:, 0, :height, :width].double(), p.truth).mean().item()
    assert height < SIDE and SamObjective(model)([p]).item() == pytest.approx(expected, abs=1e-5)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_checkpointed_gradients_are_the_same(dropout, precision):
    model = adapted_sam(config=SerialLoRAConfig(rank=4, dropout=dropout)).train()
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(5)  # of dropout
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            loss = SamObjective(model, checkpointing)(batch())
        found.append(gradients(loss, model) | {"loss": loss.detach()})
    plain, checkpointed = found
    assert min(gradient.abs().max() for gradient in plain.values()) > 0
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-6, rtol=1e-5)


# --- number formats ------------------------------------------------------------------------------


def test_autocast_is_for_the_image_encoder_alone():
    model, seen = adapted_sam(), {"image_encoder": set(), "mask_decoder": set()}
    for part, dtypes in seen.items():
        for module in model.get_submodule(part).modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.ConvTranspose2d)):
                module.register_forward_hook(lambda *call, into=dtypes: into.add(call[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = SamObjective(model)(batch())
    loss.backward()
    assert torch.bfloat16 in seen["image_encoder"] and seen["mask_decoder"] == {torch.float32}
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


# --- a picture's way in and back -----------------------------------------------------------------


@pytest.mark.parametrize("place", [(0, 0), (599, 799), (311, 402)])
def test_an_object_of_one_pixel_is_still_there_in_a_smaller_frame(place):
    masks = np.zeros((2, 600, 800), bool)
    masks[0][place] = True
    masks[1, 100:400, 200:500] = True
    p = prepare(SegmentationExample(Image.new("RGB", (800, 600)), masks, ("dot", "box"), "a"), SIDE)
    assert 1 <= p.truth[0].sum() <= 4
    row, column = np.argwhere(p.truth[0].numpy()).mean(0)
    assert (row, column) == pytest.approx([(x + 0.5) / 20 - 0.5 for x in place], abs=1)
    assert p.truth[1].sum() == 15 * 15


# --- boxes ---------------------------------------------------------------------------------------


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.floats(0.01, 0.2499),
    st.integers(0, 10**6),
    st.data(),
)
@settings(deadline=None)
def test_a_jittered_box_is_a_box_inside_the_picture(width, height, amount, seed, data):
    x0 = data.draw(st.integers(0, width - 1))
    y0 = data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    box = torch.tensor([[x0, y0, x1, y1]] * 20, dtype=torch.float32)
    some = PreparedExample(torch.empty(3, height, width), box, torch.empty(0), (height, width))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        moved = jitter_boxes(some, amount).boxes
    assert (moved[:, :2] < moved[:, 2:]).all()
    assert (moved >= 0).all() and (moved <= torch.tensor([width, height] * 2)).all()
    sides = torch.tensor([x1 - x0, y1 - y0] * 2)
    assert ((moved - box).abs() <= 2 * amount * sides + 1e-3).all()
