"""The pretended GPU refuses what a GPU refuses, and the labs train and look on it at the paper's size."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.labs import clip
from serial_lora_course.labs.device import GIB
from serial_lora_course.labs.fit import CHOICES
from tests.gpu import __main__ as tool
from tests.gpu.labs import METHODS, looked, step
from tests.gpu.pretended import DEVICE, Refused, Taken, pretended_gpu

ROWS = tool.stored_rows()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable]:
    """Does work in a process of its own, which the device never leaves."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield lambda work, *given, **named: pool.submit(work, *given, **named).result()


# -------------------------------------------------------------------------------------- the device


def two_layers(n: int, d: int, h: int) -> tuple[int, Taken]:
    with pretended_gpu() as gpu:
        layers = nn.Linear(d, h, bias=False), nn.ReLU(), nn.Linear(h, d, bias=False)
        model, x = nn.Sequential(*layers).to(DEVICE), torch.empty(n, d).to(DEVICE)
        gpu.begin()
        loss = model(x).sum()
        kept = gpu.live - gpu.taken.before
        forward = gpu.taken.peak
        loss.backward()
        gpu.taken.peak, gpu.taken.kept = forward, kept
        return gpu.taken


def test_memory_and_work_are_what_one_counts_by_hand(elsewhere):
    n, d, h = 5, 7, 300
    taken = elsewhere(two_layers, n, d, h)
    assert taken.before == 4 * (2 * d * h + n * d)
    assert taken.kept == 4 * (n * h + 1)  # ReLU's result, and the loss
    assert taken.peak == taken.before + 4 * 2 * n * h  # ReLU's input beside its result
    assert taken.operations == {torch.float32: 5 * 2 * n * d * h}  # x needs no gradient


UNDER_AUTOCAST = {
    "linear": (lambda x: F.linear(x, x), torch.bfloat16),
    "conv2d": (lambda x: F.conv2d(x[None, None], x[None, None]), torch.bfloat16),
    "softmax": (lambda x: x.bfloat16().softmax(-1), torch.float32),
    "layer_norm": (lambda x: F.layer_norm(x.bfloat16(), (4,)), torch.float32),
    "sum": (lambda x: x.bfloat16().sum(), torch.float32),
    "gelu": (lambda x: F.gelu(x.bfloat16()), torch.bfloat16),  # no rule
    "addcmul": (lambda x: torch.addcmul(x.bfloat16(), x, x), torch.float32),  # the widest
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x, x), torch.bfloat16),
}


def types_under_autocast() -> dict[str, torch.dtype]:
    with pretended_gpu(), torch.autocast("pretended", torch.bfloat16):
        x = torch.empty(1, 1, 4, 4, device=DEVICE)
        flat = {"conv2d", "linear"}
        return {n: f(x[0, 0] if n in flat else x).dtype for n, (f, _) in UNDER_AUTOCAST.items()}


def test_autocast_gives_the_types_that_pytorchs_manual_tells_for_cuda(elsewhere):
    assert elsewhere(types_under_autocast) == {n: dtype for n, (_, dtype) in UNDER_AUTOCAST.items()}


# ---------------------------------------------------------------------------------- planted faults

SMALL = {"model_name": "tiny-clip", "batch_size": 2}


def masked(fused: bool) -> Tensor:
    """Attention in bfloat16, outside of autocast, with a mask in float32."""
    with pretended_gpu():
        q = torch.empty(2, 4, 10, 8, dtype=torch.bfloat16, device=DEVICE)
        mask = torch.zeros(10, 10, device=DEVICE)
        attend = F.scaled_dot_product_attention
        attend(q, q, q, attn_mask=mask) if fused else (q @ q.mT + mask).softmax(-1) @ q


@pytest.mark.parametrize("fused", [True, False])
def test_a_float32_mask_in_a_bfloat16_product_is_refused(elsewhere, fused):
    with pytest.raises(Refused, match="of torch.bfloat16 and torch.float32"):
        elsewhere(masked, fused)


@contextmanager
def features_on_the_cpu(objective: nn.Module) -> Iterator[None]:
    read = clip.encode_prompts
    with patch.object(clip, "encode_prompts", lambda *given: read(*given).cpu()):
        yield


@contextmanager
def tokens_left_behind(objective: nn.Module) -> Iterator[None]:
    tokens = objective.tokens
    del objective.tokens
    objective.tokens = tokens  # no buffer any more, so `.to(device)` passes it by
    yield


@contextmanager
def there_and_back(objective: nn.Module) -> Iterator[None]:
    read = clip.encode_prompts
    with patch.object(clip, "encode_prompts", lambda *given: read(*given).cpu().to(DEVICE)):
        yield


@pytest.mark.parametrize("fault", [features_on_the_cpu, tokens_left_behind])
def test_a_tensor_on_the_wrong_device_is_refused(elsewhere, fault):
    with pytest.raises(Refused, match="of tensors on cpu and pretended"):
        elsewhere(step, "clip", spoil=fault, **SMALL)


def test_a_way_to_the_cpu_and_back_is_seen_in_what_waits(elsewhere):
    usual, longer = (
        elsewhere(step, "clip", **SMALL, **more) for more in ({}, {"spoil": there_and_back})
    )
    assert usual.waits == {"models/clip.py": 1, "labs/training.py": 1}
    assert longer.waits.total() == usual.waits.total() + 4  # and their gradients


# ---------------------------------------------------------------------------------------- the labs

#: Where the CPU waits for the GPU in a step; `tokens[:, :length]`, the loss, SAM's tables of positions.
WAITS = {
    "clip": {"models/clip.py", "labs/training.py"},
    "sam": {"labs/sam.py", "labs/training.py", "modeling/image_encoder.py"},
    "sd3": {"labs/training.py"},
}
QUICK = [("clip", {"accumulation": 16}), ("sam", {"gradient_checkpointing": True})]
CASES = [
    pytest.param(
        *(lab, method, changes),
        marks=[] if (lab, changes) in QUICK and method == "Serial LoRA" else pytest.mark.slow,
        id=tool.key(lab, method, changes),
    )
    for lab, settings in tool.SETTINGS.items()
    for changes in settings
    for method in METHODS
]


@pytest.mark.parametrize(("lab", "method", "changes"), CASES)
def test_a_lab_trains(elsewhere, lab, method, changes):
    """Nothing is refused, every pair gets a gradient, and it takes what the tables say."""
    taken = elsewhere(step, lab, method, **changes)
    assert taken.silent == 0 and set(taken.waits) == WAITS[lab]
    assert taken.operations[torch.bfloat16] > 0.97 * taken.operations.total()
    assert taken.peak == pytest.approx(ROWS[tool.key(lab, method, changes)]["peak"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("lab", WAITS)
def test_a_lab_looks(elsewhere, lab):
    for name, taken in elsewhere(looked, lab).items():
        assert taken.peak == pytest.approx(ROWS[f"{lab}, {name}"]["peak"], rel=0.02)


@pytest.mark.parametrize("lab", CHOICES)
def test_the_table_of_what_fits_says_what_was_computed(lab):
    for changes, needed in CHOICES[lab]:
        peak = ROWS[tool.key(lab, "LoRA", changes)]["peak"] / GIB
        assert needed == pytest.approx(peak + tool.UNSEEN, abs=0.1), changes


def test_the_page_shows_what_was_computed():
    assert tool.PAGE.read_text("utf-8") == tool.page(ROWS)
