"""Frozen blocks computed once: the same outputs and gradients, and nothing stale."""

import open_clip
import pytest
import torch

from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.injection import adapter_parameters, eject, inject
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.prefix import FrozenPrefix
from serial_lora_course.labs.sam import SamObjective
from serial_lora_course.labs.sam_inputs import prepare
from tests.labs.lab_models import TEXT, VISION, class_tokens, state_of, unchanged
from tests.labs.small_labs import small_lab
from tests.models.sam_models import example, small_sam

BLOCKS = 3


def small_model(name: str):
    torch.manual_seed(0)
    if name == "sam":
        return small_sam()
    text = TEXT | {"vocab_size": 32, "layers": BLOCKS}
    return open_clip.CLIP(8, VISION | {"layers": BLOCKS}, text, quick_gelu=True)


def tower(name: str):
    """A model, the blocks of a tower, and the tower's pass over some of four inputs."""
    model = small_model(name)
    pictures = torch.randn(4, 3, *2 * [40 if name == "sam" else 16])
    tokens = class_tokens(4)
    if name == "sam":
        encoder = model.image_encoder
        return model, encoder.blocks, lambda rows: encoder(pictures[rows])
    if name == "image":
        blocks = model.visual.transformer.resblocks
        return model, blocks, lambda rows: model.encode_image(pictures[rows])
    return model, model.transformer.resblocks, lambda rows: model.encode_text(tokens[rows])


def adapt(model, config):
    inject(model, config)
    with torch.no_grad():
        for parameter in adapter_parameters(model):
            parameter.normal_(std=0.3)


def output_and_gradients(model, output):
    loss = (output.float() * torch.arange(output.numel()).view(output.shape)).square().mean()
    return [output, *torch.autograd.grad(loss, list(adapter_parameters(model)))]


def computed(blocks):
    """Collects the positions of the blocks that compute."""
    seen = []
    for position, block in enumerate(blocks):
        (getattr(block, "ln_1", None) or block.norm1).register_forward_hook(
            lambda *call, position=position: seen.append(position)
        )
    return seen


@pytest.mark.parametrize("name", ["sam", "image", "text"])
@pytest.mark.parametrize("kind", [SerialLoRAConfig, LoRAConfig])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_whole_tower(name, kind, precision):
    model, blocks, forward = tower(name)
    adapt(model, kind(rank=2, blocks=[2], towers="text" if name == "text" else "image"))
    prefix = FrozenPrefix(blocks)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        with prefix.once([0, 1, 2, 3]):
            first = forward([0, 1, 2, 3])
        order = [3, 1, 1]
        seen = computed(blocks)
        with prefix.once(order):
            again = forward(order)
        assert seen == [2]
        whole = forward(order)
    for one, other in zip(
        output_and_gradients(model, again), output_and_gradients(model, whole), strict=True
    ):
        size = 1e-5 * other.abs().max().item()  # sums of numbers of this size round by as much
        torch.testing.assert_close(one, other, rtol=1e-2 if precision else 1e-4, atol=size)
    torch.testing.assert_close(first[order], whole, rtol=1e-2 if precision else 1e-4, atol=1e-5)
    assert all("forward" not in vars(block) for block in blocks)


def test_only_what_stands_before_the_first_adapter_is_kept():
    model, blocks, forward = tower("image")
    prefix, seen = FrozenPrefix(blocks), computed(blocks)

    def computes(names=(0, 1)):
        seen.clear()
        with torch.no_grad(), prefix.once(names):
            output = forward(list(names))
        torch.testing.assert_close(output, forward(list(names)).detach())
        return seen[:-BLOCKS]

    everything = [0, 1, 2]
    assert computes() == computes() == everything  # its weights may be trained
    adapt(model, SerialLoRAConfig(rank=2))
    assert computes() == computes() == everything
    eject(model)
    adapt(model, SerialLoRAConfig(rank=2, blocks=[1, 2]))
    assert computes() == everything and computes() == [1, 2]
    assert computes((0, 2)) == everything and computes((2, 1)) == [1, 2]
    eject(model)
    adapt(model, SerialLoRAConfig(rank=2, blocks=[2]))  # the prefix is another now
    assert computes() == everything and computes() == [2]
    eject(model)
    adapt(model, SerialLoRAConfig(rank=2, towers=("text",)))
    assert computes() == everything and computes() == []
    with torch.autocast("cpu", torch.bfloat16):
        assert computes() == everything and computes() == []


def test_no_more_is_kept_than_the_limit():
    model, blocks, forward = tower("image")
    adapt(model, SerialLoRAConfig(rank=2, blocks=[1]))
    one = 5 * 16 * 4  # bytes of five tokens of width 16
    prefix = FrozenPrefix(blocks, limit=2 * one + 1)
    for rows in ([0, 1, 2], [0, 3]):
        with prefix.once(rows):
            forward(rows)
    assert [key[0] for key in prefix.kept] == [0, 1] and prefix.left == 1


def test_a_failure_inside_leaves_the_tower_whole():
    model, blocks, forward = tower("image")
    adapt(model, SerialLoRAConfig(rank=2, blocks=[1]))
    prefix, before = FrozenPrefix(blocks), state_of(model)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), prefix.once([0]):
            forward([0])
            raise ZeroDivisionError
        assert unchanged(model, before) and "forward" not in vars(blocks[0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_sam_objective_has_the_same_gradients(checkpointing):
    model = small_model("sam")
    adapt(model, SerialLoRAConfig(rank=2, blocks=[1, 2]))
    batch = [prepare(example((37, 29), 1 + i, i), 40) for i in range(2)]
    batch = [one._replace(picture_id=str(i)) for i, one in enumerate(batch)]
    prefix = FrozenPrefix(model.image_encoder.blocks)
    objective = SamObjective(model, checkpointing, prefix)
    found = []
    for _ in range(2):
        loss = objective(batch)
        found.append([loss, *torch.autograd.grad(loss, list(adapter_parameters(model)))])
    loss = SamObjective(model, checkpointing)(batch)
    found.append([loss, *torch.autograd.grad(loss, list(adapter_parameters(model)))])
    for once, again, whole in zip(*found, strict=True):
        torch.testing.assert_close(once, whole)
        torch.testing.assert_close(again, whole)
    assert len(prefix.kept) == 2


@pytest.mark.parametrize("name", ["clip", "sam"])
def test_a_run_that_adapts_the_last_blocks_is_the_same_with_and_without(
    name, monkeypatch, tmp_path
):
    small = small_lab(name, monkeypatch, tmp_path)
    last = 0 if name == "clip" else 2

    def runs():
        lab = small.lab(blocks=(last,), batch_size=2)
        found = [run_one(lab, METHODS["serial_lora"], small.amounts[1], seed) for seed in (1, 2)]
        assert lab.adapter(METHODS["lora"]).blocks == (last,)
        return lab, [record.measures for record in found]

    lab, with_prefix = runs()
    if name == "sam":
        assert set(lab.prefix.kept)
    monkeypatch.setattr(FrozenPrefix, "_keep", lambda *call: None)
    _, without = runs()
    for one, other in zip(with_prefix, without, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
