"""The engine of the checks: cases in a table, and what a learner reads about one that fails.

Most exercises are a table. A generator gives its cases: what goes in, what should come out by an
independent reference, and, for each known mistake, what that mistake makes of the same input::

    @exercise("2.1", "the formula equals numel() for square and for rectangular matrices")
    def pair_size():
        for inputs, outputs, rank in ((512, 2048, 8), (6, 3, 1)):
            yield Case(
                f"the size of a pair for {inputs} inputs, {outputs} outputs, rank {rank}",
                (inputs, outputs, rank),
                numel_of((rank, inputs), (outputs, rank)),
                {"only A is counted: B holds outputs x rank more": inputs * rank},
            )

What every exercise asks for is said here, once: the function returns something, of the right kind
and shape, without NaN; it leaves what came in as it was (it is given copies, so that the reference
stays right); gradients flow where a case asks for them. If several mistakes explain a wrong value,
the other cases decide between them; if they cannot, all are given as possible.

Where an answer has to be judged by its properties, the decorated function takes the learner's
objects instead, calls :func:`require`, and returns the sentence that says what was verified.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import is_open
from serial_lora_course.checking.comparing import (
    difference,
    has_nan,
    kind_problem,
    loose_kind,
    plain,
    same,
    untouched,
)
from serial_lora_course.checking.message import (
    CheckFailed,
    describe,
    likely_error,
    require,
    require_returned,
)

UNKNOWN = "none of the usual slips; print both on a tiny input, and compare shapes first"
UNKNOWN_NUMBER = "none of the usual slips; work the case above out on paper, step by step"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to say where no known mistake explains a result, or where it has the wrong form."""

    otherwise: str = ""  # the value is wrong
    form: str = ""  # the kind or the shape is wrong
    nan: str = "not a number: 0 / 0, or a root or logarithm of a negative number"
    tolerance: float = 1e-5  # relative to the largest entry of a tensor or to a number


@dataclass(frozen=True)
class Part(Advice):
    """One of several things that an answer returns, with the causes of its own."""

    what: str
    expected: Any
    causes: Mapping[str, Any] = field(default_factory=dict)

    def explains(self, cause: str, got: Any) -> bool:
        """Whether this mistake gives what the learner's answer gives; true if it is not listed.

        A cause may be a function without arguments, for mistakes that not every input allows.
        """
        if cause not in self.causes:
            return True
        value = self.causes[cause]
        try:
            value = value() if callable(value) else value
            return same(plain(got, value), value, self.tolerance)
        except RuntimeError:  # shapes that do not fit
            return False

    def compare(self, got: Any) -> None:
        """Raise ``CheckFailed`` unless ``got`` is what is expected."""
        expected, problem = self.expected, kind_problem(got, self.expected, self.form)
        value = plain(got, expected)
        if not problem and same(value, expected, self.tolerance):
            loose = loose_kind(got, expected)
            require(not loose, self.what, expected, got, f"right in value, but {loose}")
            return
        unlike = getattr(got, "shape", ()) != getattr(expected, "shape", ())
        advice = problem or (unlike and self.form) or (has_nan(got) and self.nan)
        advice = advice or self.otherwise or (unlike and "the shapes differ: follow them")
        advice = advice or (UNKNOWN if isinstance(expected, Tensor) else UNKNOWN_NUMBER)
        known = [cause for cause in self.causes if self.explains(cause, got)]
        causes = known if got is None or not problem else []
        raise CheckFailed(self.what, *difference(value, expected), advice, causes)


@dataclass(frozen=True)
class Case(Advice):
    """One input of an exercise, what is expected of it, and the mistakes that are known.

    ``expected`` is a value, or a list of :class:`Part` where several things are returned.
    """

    what: str
    arguments: tuple
    expected: Any
    causes: Mapping[str, Any] = field(default_factory=dict)
    error: str = field(default="", kw_only=True)  # the likely cause of an error in the call
    read: Callable[[Any], Any] | None = field(default=None, kw_only=True)  # result -> what counts
    leaves: Callable[..., dict[str, Tensor]] | None = field(default=None, kw_only=True)
    during: AbstractContextManager = field(default_factory=nullcontext, kw_only=True)
    after: Callable[[], None] = field(default=lambda: None, kw_only=True)  # what else is required

    def parts(self) -> list[Part]:
        """What is compared: one thing, or each of several."""
        if isinstance(self.expected, list) and isinstance(self.expected[0], Part):
            return self.expected
        advice = {entry.name: getattr(self, entry.name) for entry in fields(Advice)}
        return [Part(self.what, self.expected, self.causes, **advice)]

    def answers(self, attempt: Callable) -> list[tuple[Part, Any]]:
        """Run the attempt on copies of the arguments: each part with what was returned for it."""
        given, parts = copy.deepcopy(self.arguments), self.parts()
        with self.during:
            got = call(attempt, *given, what=self.what, cause=self.error)
        several = parts is self.expected
        said = f"{len(parts)} things" if several else self.expected
        if None not in self.causes.values():
            require_returned(self.what, got, said)
        require_unchanged(attempt, given, self.arguments)
        got = call(self.read, got, what=self.what) if self.read else got
        if several:
            enough = isinstance(got, (tuple, list)) and len(got) == len(parts)
            require(enough, self.what, said, got, self.form or f"return {len(parts)} things")
        pairs = list(zip(parts, got if several else [got], strict=True))
        return pairs + (gradients(self, got, given) if self.leaves else [])


def run_cases(table: Callable[[], Iterable[Case]], verified: str, attempt: Callable) -> str:
    """Put an attempt to the cases of a table, in order, and say what a right one has shown."""
    cases = iter(table())
    seen: list[tuple[Part, Any]] = []
    for case in cases:
        try:
            for part, got in case.answers(attempt):
                seen.append((part, got))
                part.compare(got)
        except CheckFailed as failure:
            if failure.causes:
                narrow(failure, seen, cases, attempt)
            raise
        case.after()
    return verified


def narrow(
    failure: CheckFailed, seen: list[tuple[Part, Any]], rest: Iterable[Case], attempt: Callable
) -> None:
    """Keep the causes that explain what the attempt gives in the other cases too."""
    tensor = isinstance(seen[-1][1], Tensor)
    if tensor and len(failure.causes) == 1:
        return  # a whole tensor agrees with a mistake by no coincidence; a single number may
    for case in rest:
        with suppress(CheckFailed, NotImplementedError):
            seen += case.answers(attempt)
    fit = [c for c in failure.causes if all(part.explains(c, got) for part, got in seen)]
    failure.causes = fit or (failure.causes if tensor else [])


def call(
    attempt: Callable, *arguments: Any, what: str = "", cause: str = "", **keywords: Any
) -> Any:
    """Call the learner's code; an error in it becomes a ``CheckFailed`` that keeps its traceback.

    ``NotImplementedError`` passes through, as it means that the exercise is still open.
    ``cause`` replaces the guessed likely cause.
    """
    try:
        return attempt(*arguments, **keywords)
    except CheckFailed:
        raise
    except Exception as error:
        if is_open(error):
            raise
        shapes = ", ".join(describe(argument) for argument in arguments)
        what = what or f"a call with {shapes or 'no arguments'}"
        told = f"{type(error).__name__}: {error}"
        raise CheckFailed(what, "a result", told, cause or likely_error(error)) from error


def compare(
    what: str, got: Any, expected: Any, causes: Mapping[str, Any] | None = None, **advice: Any
) -> None:
    """Require that ``got`` is what is expected; ``advice`` as in :class:`Advice`."""
    require_returned(what, got, expected)
    Part(what, expected, causes or {}, **advice).compare(got)


def require_unchanged(attempt: Callable, given: Sequence, before: Sequence) -> None:
    """Require that what came in is as it was before the call."""
    try:
        names = list(inspect.signature(getattr(attempt, "forward", attempt)).parameters)
    except (TypeError, ValueError):
        names = []
    for index, (now, then) in enumerate(zip(given, before, strict=True)):
        name = names[index] if index < len(names) else f"argument {index + 1}"
        cause = (
            "what came in is changed, in its numbers, by a hook or in its mode (train, eval): leave it "
            "alone, or work on copy.deepcopy of it"
            if isinstance(now, nn.Module)
            else "what came in is changed in place (as +=, mul_ and sort() do): whoever else holds "
            "it has another one now, so make a new one"
        )
        require(untouched(now, then), f"{name}, after the call", "as before", "changed", cause)


def gradients(case: Case, got: Any, given: tuple) -> list[tuple[Part, Any]]:
    """The gradient of each leaf of a case, by the reference and by the learner's result."""
    own, leaves = case.leaves(*given), case.leaves(*case.arguments)
    weights = torch.randn_like(case.expected)
    total = (case.expected * weights).sum()
    wanted = torch.autograd.grad(total, [*leaves.values()], retain_graph=True)
    found = [None] * len(own)
    if isinstance(got, Tensor) and got.shape == weights.shape and got.requires_grad:
        what, total = f"the gradients of {' and '.join(own)}", (got * weights).sum()
        found = call(torch.autograd.grad, total, [*own.values()], allow_unused=True, what=what)
    lost = [name for name, gradient in zip(own, found, strict=True) if gradient is None]
    away = "leave no_grad, detach, copies, .data, .item() and masks of True and False away"
    reached = f"no gradient reaches {' and '.join(own)}" if len(lost) == len(own) else None
    parts = []
    for name, right, gradient in zip(own, wanted, found, strict=True):
        cause = f"{reached or f'{name} gets no gradient, and would never learn'}: {away}"
        partly = f"a part of the way from {name} to the result is cut off: {away}"
        advice = {"form": cause, "otherwise": partly, "tolerance": 1e-3}
        parts.append((Part(f"the gradient of {name}", right, **advice), gradient))
    return parts
