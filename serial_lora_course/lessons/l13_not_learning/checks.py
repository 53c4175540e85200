"""Checks of lesson 13: an optimizer, a checkpointed tower, types of numbers, pixels, a rate."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from serial_lora import SerialLoRAConfig
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

# ------------------------------------------------------------------- 13.1 what the optimizer holds

HELD = "the tensors that the optimizer holds"
LEARNS = "the tensors that require a gradient"
OPTIMIZER, RATES = "the optimizer", "its rates"
ADVICE_1 = {
    OPTIMIZER: "return torch.optim.AdamW of what learns",
    RATES: "pass lr to the optimizer",
    LEARNS: "put the adapter into the model that was given: inject freezes all else in it",
    HELD: "give the optimizer all tensors that require a gradient, after the adapter is in, and no others",
}


def held_by(optimizer: Any, model: nn.Module, *_: object) -> list:
    """The kind of an optimizer, its rates, and whose tensors it holds, as counts by name."""
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    groups = getattr(optimizer, "param_groups", [])
    held = [id(tensor) for group in groups for tensor in group["params"]]
    learns = [id(tensor) for tensor in model.parameters() if tensor.requires_grad]
    return [
        type(optimizer).__name__,
        sorted({group["lr"] for group in groups}),
        counted(learns, names),
        counted(held, names),
    ]


def counted(held: list[int], names: dict[int, str]) -> str:
    """How many tensors have a name of each kind: ``2 lora_A, 2 lora_B, 1 from elsewhere``."""
    kinds = [names.get(each, "from elsewhere").rpartition(".")[2] for each in held]
    kinds = [kind if "lora" in kind or "else" in kind else "of the base" for kind in kinds]
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items())) or "none"


@exercise(
    "13.1",
    "the optimizer holds both matrices of every pair, at the rate that was given, and nothing of the base",
)
def optimizer_of() -> Iterator[Case]:
    """Counts by name of what is held, for encoders of two and of three layers."""
    for layers, lr in ((2, 0.01), (3, 0.5)):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        pairs = f"{layers} lora_A, {layers} lora_B"
        yield Case(
            f"an encoder of {layers} layers",
            (model, SerialLoRAConfig(rank=2), lr),
            Parts(zip(ADVICE_1, ("AdamW", [lr], pairs, pairs), strict=True)),
            read=held_by,
            advice=ADVICE_1,
            may_change=True,
        )


# ----------------------------------------------------------------- 13.2 gradients through a tower


class Block(nn.Module):
    """A frozen layer with a pair beside it, which counts how often it is run."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width).requires_grad_(False)
        self.pair = nn.Parameter(torch.randn(width, width))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + torch.tanh(self.layer(x) @ self.pair)


OUTPUT, CALLS = "the output", "how often each block is run, forward and backward"
PAIRS, TOKENS = "the gradients of the pairs", "the gradient of the tokens"
ADVICE_2 = {
    OUTPUT: "each block reads what the one before it returned",
    PAIRS: "no gradient reaches them: use the kind of checkpoint that is not reentrant",
    TOKENS: "the gradient stops at the tokens: do not detach them",
    CALLS: "run each block by torch.utils.checkpoint.checkpoint, which runs it once more on the way back",
}


def backward_of(output: Tensor, blocks: nn.ModuleList, tokens: Tensor) -> list:
    """The output, the gradients behind it, and how often blocks ran."""
    leaves = [tokens, *(block.pair for block in blocks)]
    if output.requires_grad:
        output.square().sum().backward()
    of_tokens, *of_pairs = (leaf.grad for leaf in leaves)
    there = all(each is not None for each in of_pairs)
    return [
        output.detach(),
        torch.stack(of_pairs) if there else "none",
        "none" if of_tokens is None else of_tokens,
        [block.calls for block in blocks],
    ]


def quietly(attempt: Callable) -> Callable:
    """An answer without PyTorch's warning, which would give away what is wrong."""

    def run(*given: Any) -> Any:
        with warnings.catch_warnings(action="ignore"):
            return attempt(*given)

    return run


@exercise(
    "13.2",
    "the output and all gradients are those of the plain tower, and each block is computed again on the way back",
    through=quietly,
)
def through_blocks() -> Iterator[Case]:
    """Against the blocks called one after another, with tokens that need a gradient and that do not."""
    for what, needed in (("a frozen stem", False), ("a trained stem", True)):
        blocks = nn.ModuleList(Block(4) for _ in range(3))
        tokens = torch.randn(2, 5, 4).requires_grad_(needed)
        plain, start = copy.deepcopy(blocks), tokens.detach().clone().requires_grad_(needed)
        output = plain[2](plain[1](plain[0](start)))
        expected = backward_of(output, plain, start)[:3]
        yield Case(
            f"three blocks behind {what}",
            (blocks, tokens),
            Parts(zip(ADVICE_2, (*expected, [2, 2, 2]), strict=True)),
            read=backward_of,
            advice=ADVICE_2,
        )


# ------------------------------------------------------------------------------ 13.3 the pixels


@exercise(
    "13.3", "red, green and blue from 0 to 255, for pictures of five kinds that are not square"
)
def pixels_of() -> Iterator[Case]:
    """Against Pillow's own pixels, one by one."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    for mode in ("RGB", "L", "RGBA", "P", "LA"):
        picture = Image.fromarray(colours).convert(mode)
        plain = picture.convert("RGB")
        rows = [[plain.getpixel((x, y)) for x in range(5)] for y in range(3)]
        expected = torch.tensor(rows, dtype=torch.float32).movedim(-1, 0)
        yield Case(
            f"the pixels of a picture of kind {mode}",
            (picture,),
            expected,
            read=lambda found, _: found.float() if isinstance(found, Tensor) else found,
        )


# --------------------------------------------------------------------------- 13.4 types of numbers

KEPT, SAME = "what is returned", "whether an optimizer made before still holds the parameters"
TRAINED, FROZEN, VALUES = "trained parameters", "frozen parameters", "the trained values"
ADVICE_4 = {
    KEPT: "change the model itself, and return it",
    SAME: "change tensor.data, so that the parameter stays the same object",
    TRAINED: "a parameter that requires a gradient is float32, and still requires it",
    FROZEN: "a parameter that requires none is bfloat16",
    VALUES: "do not round what is trained to bfloat16 on the way",
}


def watched(attempt: Callable) -> Callable:
    """An answer, and which parameters there were before it."""

    def run(model: nn.Module) -> list:
        before = list(model.parameters())
        return [attempt(model), before]

    return run


def types_of(found: list, model: nn.Module) -> list:
    """What counts in a model whose numbers changed their type."""
    returned, before = found
    now = list(model.parameters())
    kinds = [
        " ".join(
            sorted({str(p.dtype).removeprefix("torch.") for p in now if p.requires_grad is on})
        )
        for on in (True, False)
    ]
    trained = [p.detach().double().flatten() for p in now if p.requires_grad]
    return [
        "the model" if returned is model else f"another thing ({type(returned).__name__})",
        all(mine is theirs for mine, theirs in zip(now, before, strict=True)),
        *(kind or "none" for kind in kinds),
        torch.cat(trained) if trained else torch.zeros(1, dtype=torch.double),
    ]


@exercise(
    "13.4",
    "trained parameters are float32 and keep their values, frozen ones are bfloat16, and all are the same objects",
    through=watched,
)
def lower() -> Iterator[Case]:
    """A model in float32, and one whose pair was loaded in bfloat16."""
    for what, loaded in (("float32", False), ("float32 with a pair in bfloat16", True)):
        model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3))
        model.requires_grad_(False)
        model[0].weight.requires_grad_()
        model[1].bias.requires_grad_()
        nn.init.normal_(model[1].bias)
        if loaded:
            model[0].weight.data = model[0].weight.data.bfloat16()
        values = [model[0].weight.detach().double().flatten(), model[1].bias.detach().double()]
        expected = ("the model", True, "float32", "bfloat16", torch.cat(values))
        yield Case(
            f"a model in {what}",
            (model,),
            Parts(zip(ADVICE_4, expected, strict=True)),
            read=types_of,
            advice=ADVICE_4,
            tolerance=1e-9,
            may_change=True,
        )


# ------------------------------------------------------------------------------- 13.5 the rate


@exercise(
    "13.5",
    "the rate rises in a straight line over a tenth of the run and stays, in runs of 4 to 200 steps",
    through=lambda attempt: lambda steps: [float(attempt(step, steps)) for step in range(steps)],
)
def share_of_rate() -> Iterator[Case]:
    """Against NumPy's line between two points."""
    for steps in (30, 4, 19, 22, 200):
        warm_up = int(np.clip(steps / 10, 1, None))
        expected = np.interp(np.arange(1, steps + 1), [0, warm_up], [0, 1])
        yield Case(f"the shares in a run of {steps} steps", (steps,), expected.tolist())
