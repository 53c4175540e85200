"""One optimizer step on a pair: its parts, what it does to the loss, how its effect grows with width."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from serial_lora.injection import eject, inject
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.records import adapters
from serial_lora_course.labs.clip import zero_shot_of
from serial_lora_course.labs.frames import as_text
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import Lesson
from serial_lora_course.labs.methods import get_method

Parts = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
MakeOptimizer = Callable[[nn.Parameter, nn.Parameter], torch.optim.Optimizer]
SHOWN = (1, 2, 5, 20, 100)
FEW_STEPS = 25  # of a run that only compares rates


class SmallTask(nn.Module):
    """A frozen layer with a fresh pair, which has to learn a change of the layer from some tokens."""

    def __init__(self, width: int = 64, rank: int = 4, tokens: int = 32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.layer = nn.Linear(width, width, bias=False).requires_grad_(False)
        self.pair = LoRA(width, width, rank)
        with torch.no_grad():
            for matrix in (self.layer.weight, self.pair.lora_A):
                matrix.normal_(std=width**-0.5, generator=generator)
        self.x = torch.randn(tokens, width, generator=generator)  # (N, d)
        change = torch.randn(width, width, generator=generator) / width**0.5  # (d, d)
        self.wanted = self.x @ (self.layer.weight + change).T  # (N, d)

    @property
    def matrices(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A and B."""
        return self.pair.lora_A, self.pair.lora_B

    def loss(self) -> Tensor:
        """Mean squared distance from what is wanted."""
        return (self.layer(self.x) + self.pair(self.x) - self.wanted).square().mean()

    def step(self, optimizer: torch.optim.Optimizer) -> tuple[Tensor, ...]:
        """Take one; A and B before it, and what it added to each."""
        before = [matrix.detach().clone() for matrix in self.matrices]
        optimizer.zero_grad()
        self.loss().backward()
        optimizer.step()
        added = [now.detach() - old for now, old in zip(self.matrices, before, strict=True)]
        return *before, *added


def watch_steps(
    make_optimizer: MakeOptimizer,
    parts_of: Parts,
    shown: Sequence[int] = SHOWN,
) -> pd.DataFrame:
    """Train the small task: loss, sizes of both steps and of the three parts, for the steps shown."""
    task, rows = SmallTask(), []
    optimizer = make_optimizer(*task.matrices)
    for number in range(1, max(shown) + 1):
        loss = task.loss().item()
        A, B, step_A, step_B = task.step(optimizer)
        if number in shown:
            sizes = [t.norm().item() for t in (step_A, step_B, *parts_of(A, B, step_A, step_B))]
            rows.append([number, loss, *sizes])
    columns = ["step", "loss before", "size of ΔA", "size of ΔB", "ΔB A", "B ΔA", "ΔB ΔA"]
    return pd.DataFrame(rows, columns=columns)


def one_step_at(ratio: float, lr_A: float, parts_of: Parts, warm: int = 10) -> dict[str, float]:
    """The small task after some steps of Adam at equal rates, and then one step at a ratio."""
    task = SmallTask()
    optimizer = torch.optim.Adam([{"params": [matrix]} for matrix in task.matrices], lr=lr_A)
    for _ in range(warm):
        task.step(optimizer)
    optimizer.param_groups[1]["lr"] = lr_A * ratio
    before = task.loss().item()
    A, B, step_A, step_B = task.step(optimizer)
    of_B, of_A, both = (part.norm().item() for part in parts_of(A, B, step_A, step_B))
    slopes = [matrix.grad for matrix in task.matrices]
    promised = sum((g * s).sum().item() for g, s in zip(slopes, (step_A, step_B), strict=True))
    sizes = {"ratio": ratio, "B's part": of_B, "A's part": of_A, "both": both}
    return sizes | {"promised": promised, "loss changed by": task.loss().item() - before}


def effect_of_steps(serial: bool, width: int, rank: int = 8, lr: float = 1e-3) -> dict[str, float]:
    """How far one Adam step of A, and one of B, moves the output (N, d), relative to its size."""
    torch.manual_seed(width)
    W = torch.randn(width, width) / width**0.5  # keeps entries at ordinary size
    x, wanted = torch.randn(16, width), torch.randn(16, width)  # (N, d)
    pair = SerialLoRA(width, rank) if serial else LoRA(width, width, rank)
    nn.init.normal_(pair.lora_B, std=rank**-0.5)

    def output() -> Tensor:
        return pair(x) @ W.T if serial else x @ W.T + pair(x)  # (N, d)

    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    start = output()
    (start - wanted).square().mean().backward()
    torch.optim.Adam(pair.parameters(), lr=lr).step()
    after = {name: p.detach().clone() for name, p in pair.named_parameters()}
    effects = {}
    with torch.no_grad():
        for name in before:
            pair.load_state_dict(before | {name: after[name]})  # this one moved, the other put back
            effects[name[-1]] = ((output() - start).norm() / start.norm()).item()
    return effects


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the size that values grow with: the slope of log value over log size."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def pair_called(first: str, second: str) -> nn.Module:
    """A module that holds one pair, its matrices under these names."""
    model = nn.Module()
    model.attention = nn.Module()
    model.attention.pair = nn.ParameterDict({first: torch.randn(4, 32), second: torch.zeros(32, 4)})
    return model


def rates_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What an optimizer does with the two matrices of such a module."""
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    A, B = (of[id(p)] for p in model.parameters())
    told = {"rate of A": A["lr"], "rate of B": B["lr"], "B / A": B["lr"] / A["lr"]}
    told |= {"weight decay": B["weight_decay"], "groups": len(optimizer.param_groups)}
    return {name: f"{value:g}" for name, value in told.items()}


def short_run(
    lesson: Lesson, name: str, lr_A: float, ratio: float, base: dict[str, float], seed: int = 1
) -> pd.Series:
    """A run of few steps on 4 shots; how far A moved, how large B became, loss and accuracy.

    Args:
        base: what the unadapted model reaches.
    """
    few = min(FEW_STEPS, lesson.config.min_steps)
    config = lesson.configured(plus_lr=lr_A, epochs=1, min_steps=few)
    method = get_method(name).with_ratio(ratio)
    lab = lesson.lab(config=config, base=base)
    record = run_one(lab, method, 4, seed, progress=False, keep_adapter=True)
    end = [pair.state_dict() for pair in adapters(lesson.model).values()]
    eject(lesson.model)
    torch.manual_seed(seed)  # as the run began
    start = adapters(inject(lesson.twin().model, method.config(config.rank))).values()
    A0 = torch.cat([pair.lora_A.flatten() for pair in start]).detach().cpu()
    A1, B1 = (torch.cat([s[key].flatten().cpu() for s in end]) for key in ("lora_A", "lora_B"))
    return pd.Series(
        {
            "rate of A": lr_A,
            "rate of B": lr_A * ratio,
            "A moved by": ((A1 - A0).norm() / A0.norm()).item(),
            "an entry of B": B1.square().mean().sqrt().item(),
            "loss": record.measures["loss"],
            "accuracy": record.measures["accuracy"],
            "zero-shot": zero_shot_of(record),
        }
    )


def three_ways(lesson: Lesson, large: float) -> pd.DataFrame:
    """Both methods slow (a tenth of a rate), plus (B alone at that rate) and fast (both at it)."""
    ways = {"slow": (large / 10, 1), "plus": (large / 10, 10), "fast": (large, 1)}
    names = {"LoRA": "lora_plus", "Serial LoRA": "serial_lora_plus"}
    base = lesson.lab().base
    rows = {
        (label, way): short_run(lesson, name, *rates, base)
        for label, name in names.items()
        for way, rates in ways.items()
    }
    return pd.DataFrame(rows).T.rename_axis(["pair", "way"])


def as_shown(three: pd.DataFrame) -> pd.DataFrame:
    """Those runs as a reader wants them."""
    formats = {"rate of A": "{:g}", "rate of B": "{:g}", "A moved by": "{:.0%}"}
    formats |= {"an entry of B": "{:.4f}", "loss": "{:.2f}", "accuracy": "{:.1%}"}
    return as_text(three, formats)[list(formats)].reset_index()
