"""SD3 medium, all two billion numbers.

Weights are random and in bfloat16, as frozen ones are loaded at paper scale; nothing else differs.
"""

from functools import partial

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora_course.labs.sd3 import PAPER, StyleObjective, gradient_checkpointing
from serial_lora_course.labs.sd3_inputs import EncodedPicture, Prompts, meet_noise
from serial_lora_course.labs.training import ExampleStream, train
from serial_lora_course.models.architectures import ARCHITECTURES
from tests.labs.lab_models import trained_tensors

TEXT_TOKENS = 77 + 77
RANK = 64


def sd3_medium() -> SD3Transformer2DModel:
    """The transformer of SD3 medium with random weights in bfloat16.

    Built without values first: float32 ones would take twice the room for a moment.
    """
    whole = ARCHITECTURES["sd3"].on_meta()
    with torch.device("meta"):
        model = SD3Transformer2DModel.from_config(whole.config)
    model = model.bfloat16().to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.uniform_(-0.03, 0.03)
    return model.eval()


def adapted(model: nn.Module) -> nn.Module:
    """With an adapter whose B is random, as after a few steps."""
    torch.manual_seed(1)
    inject(model, SerialLoRAConfig(rank=RANK))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.uniform_(-0.01, 0.01)
    return model


def encoded(pixels: int, seed: int) -> EncodedPicture:
    """A picture and its caption as SD3 medium's autoencoder and text encoders would leave them."""
    generator = torch.Generator().manual_seed(seed)
    side = pixels // 8
    return EncodedPicture(
        torch.randn(16, side, side, generator=generator),
        torch.randn(TEXT_TOKENS, 4096, generator=generator).bfloat16(),
        torch.randn(2048, generator=generator).bfloat16(),
    )


def stream(pixels: int) -> ExampleStream:
    """What a step of the lab needs at paper scale: four pictures, one at a time."""
    empty = Prompts(torch.zeros(1, TEXT_TOKENS, 4096).bfloat16(), torch.zeros(1, 2048).bfloat16())
    noisy = partial(meet_noise, empty=empty, text_dropout=PAPER.text_dropout, shift=3.0)
    pictures = [encoded(pixels, seed) for seed in range(PAPER.batch_size)]
    return ExampleStream(pictures, range(len(pictures)), noisy, 1, PAPER.batch_size, steps=1)


def one_step_of(model: nn.Module, pixels: int) -> None:
    """One step as the lab takes it at paper scale; the adapter and nothing else must move."""
    start = trained_tensors(model)
    assert all(tensor.dtype == torch.float32 for tensor in start.values())
    frozen = {name: p for name, p in model.named_parameters() if name not in start}
    before = {name: p.clone() for name, p in frozen.items() if "blocks.0." in name}
    with gradient_checkpointing(model, True):
        history = train(StyleObjective(model), stream(pixels), PAPER.training(1))
    assert 0 < history.losses[0] < 100
    moved = {name for name, p in trained_tensors(model).items() if not torch.equal(p, start[name])}
    assert moved == set(start)
    assert before and all(torch.equal(frozen[name], tensor) for name, tensor in before.items())
    assert all(p.grad is None and p.dtype == torch.bfloat16 for p in frozen.values())


@pytest.mark.slow
def test_one_training_step_of_the_whole_model():
    """Two billion weights in bfloat16, 4 GB, on a picture of 256 pixels a side."""
    model = adapted(sd3_medium())
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 2_028_328_000
    assert sum(t.numel() for t in trained_tensors(model).values()) == 4_718_592
    one_step_of(model, pixels=256)
