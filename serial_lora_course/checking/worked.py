"""A wrong answer that no known mistake explains, beside the solved one, on one case in numbers.

Nothing is written for it by exercise: the lines are what the two functions were given, what their
own names held in the end, and what they returned, seen as they ran.
"""

from __future__ import annotations

import copy
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

HIDDEN = ModuleType, FunctionType, type, nn.Module, torch.optim.Optimizer
FEW, WIDEST = 4, 96


class Steps:
    """What an answer did in its first call, by Python's tracing; or each method of it."""

    def __init__(self, answer: Any) -> None:
        self.methods = isinstance(answer, type)
        functions = vars(answer).values() if self.methods else [answer]
        self.codes = {f.__code__ for f in functions if isinstance(f, FunctionType)}
        self.given: dict[str, str] = {}
        self.named: dict[str, str] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable | None:
        """Python asks at each call whether to follow it."""
        if frame.f_code not in self.codes:
            return None
        self.codes.remove(frame.f_code)
        self.given |= shown(frame)
        frame.f_trace_lines = False
        return self.follow

    def follow(self, frame: FrameType, event: str, argument: Any) -> Callable:
        """At the end of a call that is followed: what its names hold, and what it returns."""
        if event == "return":
            new = [item for item in shown(frame).items() if item not in self.given.items()]
            result = frame.f_code.co_name if self.methods else "result"
            self.named |= dict(new) | ({} if argument is None else {result: shortened(argument)})
        return self.follow


def steps_of(answer: Any, through: Callable, case: Case) -> Steps:
    """Run an answer on a case, and note its steps; an error is the last of them."""
    steps, before = Steps(answer), sys.gettrace()
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        given = copy.deepcopy(case.arguments)
        sys.settrace(steps)
        try:
            result = through(answer)(*given)
            if not steps.named:  # no function of Python's, such as torch.lerp
                steps.named["result"] = shortened(result)
        except Exception as error:
            steps.named[type(error).__name__] = text_of(error)[:WIDEST]
        finally:
            sys.settrace(before)
    return steps


def shown(frame: FrameType) -> dict[str, str]:
    """The values of a call by name, shortened; its modules and functions are no numbers."""
    named = [(name, value) for name, value in frame.f_locals.items() if not name.startswith("_")]
    return {name: shortened(value) for name, value in named if not isinstance(value, HIDDEN)}


def shortened(value: Any) -> str:
    """A value on a line: the numbers of a small tensor; of a large one the first, and their sum."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
        value = torch.from_numpy(value)
    if isinstance(value, Tensor) and not value.is_complex():
        numbers = value.detach().flatten()
        if len(numbers) <= 2 * FEW:
            return shortened(value.tolist())
        size = "x".join(map(str, value.shape))
        return f"{size} {shortened(numbers.tolist())}, sum {shortened(numbers.sum().item())}"
    if isinstance(value, (list, tuple)):
        few = value if len(value) <= 2 * FEW else value[:FEW]
        inside = ", ".join([*map(shortened, few), *["..."] * (len(few) < len(value))])
        text = f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    elif isinstance(value, (float, np.floating)):
        text = f"{value:.4g}"
    else:
        text = repr(value) if isinstance(value, str) else describe(value)
    return text if len(text) < WIDEST else f"{text[: WIDEST - 3]}..."


def size(value: Any) -> int:
    """How many numbers there are in something, about; of whole numbers, digits."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, int):
        return len(str(value))
    if isinstance(value, nn.Module):
        return sum(map(size, value.parameters()))
    values = value.values() if isinstance(value, dict) else value
    return sum(map(size, values)) if isinstance(values, Iterable) and values != str(values) else 1


def worked(answer: Any, right: Any, through: Callable, case: Case) -> list[str]:
    """The lines of a message that work a case by the solved answer and by the learner's."""
    solved, own = (steps_of(each, through, case) for each in (right, answer))
    lines = [f"  in numbers:   {case.what}"]
    for who, told in {"given": solved.given, "solved": solved.named, "yours": own.named}.items():
        for name, text in told.items():
            lines.append(f"    {who:<7} {name} = {text}")
            who = ""
    return lines
