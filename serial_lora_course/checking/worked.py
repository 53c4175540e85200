"""A wrong answer that no known mistake explains, and the solved one beside it, on the smallest case in numbers.

Nothing is written for it by exercise: the lines are what the two functions were given, what they called by a
name of their own, and what they returned, seen as they ran.
"""

from __future__ import annotations

import copy
import inspect
import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from types import FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.message import describe, text_of

MOST_STEPS, MOST_NUMBERS = 8, 4


class Steps:
    """What an answer did when it was called for the first time: each of its methods, if it is a class."""

    def __init__(self, answer: Any) -> None:
        functions = vars(answer).values() if isinstance(answer, type) else [answer]
        self.codes = {f.__code__ for f in functions if isinstance(f, FunctionType)}
        self.given: list[str] = []
        self.told: list[str] = []
        self.known: dict[str, str] = {}
        self.named: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Callable | None:
        """What Python asks at each call: whether to follow it."""
        if frame.f_code not in self.codes:
            return None
        self.codes.remove(frame.f_code)  # the first call alone
        self.known, self.named = shown(frame), []
        self.given += [f"{name} = {text}" for name, text in self.known.items()]
        return self.follow

    def follow(self, frame: FrameType, event: str, argument: Any) -> Callable:
        """What Python tells of each line of a call that is followed."""
        if event not in ("line", "return"):
            return self.follow
        now = shown(frame)
        new = [(name, text) for name, text in now.items() if self.known.get(name) != text]
        self.named += new
        self.known.update(new)
        if event == "return":  # by then the variables of comprehensions are gone
            steps = [f"{name} = {text}" for name, text in self.named if name in now]
            dots = ["..."] * (len(steps) > MOST_STEPS)
            method = "" if "self" not in frame.f_locals else f"{frame.f_code.co_name}: "
            result = [] if argument is None else [f"{method}result = {shortened(argument)}"]
            self.told += steps[:MOST_STEPS] + dots + result
        return self.follow


def shown(frame: FrameType) -> dict[str, str]:
    """The values in a call by name, shortened, but for modules, functions and classes."""
    hidden = ModuleType, FunctionType, type, nn.Module, torch.optim.Optimizer
    named = [(name, value) for name, value in frame.f_locals.items() if not name.startswith("_")]
    return {name: shortened(value) for name, value in named if not isinstance(value, hidden)}


def shortened(value: Any) -> str:
    """A value in some sixty characters: the numbers of a small tensor; of a large one the first, and their sum."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
        value = torch.from_numpy(value)
    if isinstance(value, Tensor) and not value.is_complex():
        numbers = value.detach().flatten()
        if len(numbers) <= 2 * MOST_NUMBERS:
            return shortened(value.tolist())
        first = shortened(numbers.tolist())
        return f"{'x'.join(map(str, value.shape))} {first}, sum {shortened(numbers.sum().item())}"
    if isinstance(value, (list, tuple)):
        items = [shortened(item) for item in value[: 2 * MOST_NUMBERS]]
        items = items[:MOST_NUMBERS] + ["..."] if len(value) > 2 * MOST_NUMBERS else items
        return f"({', '.join(items)})" if isinstance(value, tuple) else f"[{', '.join(items)}]"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    text = repr(value) if isinstance(value, str) else describe(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def steps_of(answer: Any, through: Callable, case: Case) -> Steps:
    """Run an answer on a case, and note its steps; an error is the last of them."""
    steps, before = Steps(answer), sys.gettrace()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        given = copy.deepcopy(case.arguments)
        sys.settrace(steps)
        try:
            through(answer)(*given)
        except Exception as error:
            steps.told.append(f"{type(error).__name__}: {text_of(error)[:100]}")
        finally:
            sys.settrace(before)
    return steps


def size(value: Any) -> int:
    """How many numbers there are in something, about."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, nn.Module):
        return sum(map(size, value.parameters()))
    values = value.values() if isinstance(value, dict) else value
    return sum(map(size, values)) if isinstance(values, Iterable) and values != str(values) else 1


def worked(answer: Any, right: Any, through: Callable, case: Case) -> list[str]:
    """The lines of a message that work a case by the solved answer and by the learner's."""
    solved, own = (steps_of(each, through, case) for each in (right, answer))
    lines = [f"  in numbers, for {case.what}:"]
    for who, told in {"given": solved.given, "solved": solved.told, "yours": own.told}.items():
        lines += [f"    {who if not n else '':<8}{line}" for n, line in enumerate(told)]
    return lines
