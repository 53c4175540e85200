"""A case of an exercise: what goes in, what should come out, and what an answer makes of it.

An exercise is a generator of cases and a list of mistakes. A mistake is an edit of the solved lesson's
answer (or a function, where it is none), with its cause as text, in the lesson's ``mistakes.yaml``; it is
put to the same cases as the learner's answer, and what the two make of them is compared::

    @exercise("2.1", "the formula equals numel() for square and for rectangular matrices")
    def pair_size():
        for inputs, outputs, rank in ((512, 2048, 8), (6, 3, 1)):
            expected = numel_of((rank, inputs), (outputs, rank))  # not the lesson's formula
            yield Case(f"the size for {inputs} inputs, {outputs} outputs", (inputs, outputs, rank), expected)

What every exercise asks for is said here, once: the function returns something, of the right kind
and shape, without NaN; it leaves what came in as it was (it is given copies, so that the reference
stays right); gradients flow where a case asks for them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora_course.checking.comparing import (
    NOTHING,
    difference,
    has_nan,
    kind_problem,
    loose_kind,
    plain,
    same,
    untouched,
)
from serial_lora_course.checking.message import (
    RAISED,
    CheckFailed,
    describe,
    likely_error,
    text_of,
)

SHAPES = "the shapes differ: follow the shape of each step"
STEP_BY_STEP = "compare your steps with those of the solved lesson"
NO_NUMBER = "the result is nan: look for 0 / 0, or a root or logarithm of a negative number"
GRADIENTS_OFF = (
    "set_grad_enabled(False) turns gradients off for the whole notebook, not for this function "
    "(the check turned them on again): use `with torch.no_grad():`"
)
AWAY = "avoid no_grad, detach, copies, .data, .item() and masks of True and False"


class Parts(dict):
    """What is expected where several things count: what each is, and its value."""


@dataclass(frozen=True)
class Case:
    """One input of an exercise and what is expected of it, by an independent reference.

    Attributes:
        what: what is compared, as a learner reads it.
        arguments: what the answer is called with.
        expected: a value, or :class:`Parts` where several things count.
        read: ``(result, *arguments) -> what counts``; for ``Parts`` a sequence or the same keys.
        leaves: ``(*arguments) -> {name: tensor}``; where one requires a gradient, that counts too.
        advice: the likely cause where no mistake explains a wrong value; for parts by name, and
            there maybe a function of what was got.
        form: ... where the kind or the shape is wrong; for parts, where their number is.
        error: ... where the call raises.
        nan: ... where the result is not a number.
        tolerance: relative to the largest entry of a tensor, or to a number.
        may_change: the arguments, as the exercise asks for it.
    """

    what: str
    arguments: tuple
    expected: Any
    read: Callable[..., Any] | None = field(default=None, kw_only=True)
    leaves: Callable[..., dict[str, Tensor]] | None = field(default=None, kw_only=True)
    advice: str | Mapping[str, str | Callable[[Any], str]] = field(default="", kw_only=True)
    form: str = field(default="", kw_only=True)
    error: str = field(default="", kw_only=True)
    nan: str = field(default=NO_NUMBER, kw_only=True)
    tolerance: float = field(default=1e-5, kw_only=True)
    may_change: bool = field(default=False, kw_only=True)

    def parts(self) -> dict[str, Any]:
        """What is expected, by what it is."""
        return self.expected if isinstance(self.expected, Parts) else {self.what: self.expected}

    def close(self, got: Any, value: Any) -> bool:
        """Whether two results are one."""
        exact = isinstance(self.expected, Fraction) or bool in (type(got), type(value))
        if exact and type(got) is not type(value):
            return False
        numbers = not any(isinstance(each, Tensor) for each in self.parts().values())
        if not numbers and isinstance(got, Tensor) != isinstance(value, Tensor):
            return False
        try:
            return same(plain(got, value), plain(value, got), self.tolerance)
        except Exception:  # kinds or shapes that cannot be compared
            return False


@dataclass
class Outcome:
    """What an answer made of a case: a value for each part, gradients, or how it failed."""

    values: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    failure: CheckFailed | None = None


def call(
    attempt: Callable, *arguments: Any, what: str = "", cause: str = "", **keywords: Any
) -> Any:
    """Call the learner's code; an error in it becomes a ``CheckFailed`` that keeps its traceback.

    An open exercise passes through. ``cause`` replaces the guessed likely cause.
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
        told, advice = f"{type(error).__name__}: {text_of(error)}", cause or likely_error(error)
        raise CheckFailed(what, "a result", told, advice, vague=advice == RAISED) from error


def is_open(error: BaseException) -> bool:
    """Whether an error is an exercise's stub, as PyTorch raises errors of that kind itself."""
    return isinstance(error, NotImplementedError) and text_of(error).startswith("Exercise ")


def observe(case: Case, attempt: Callable) -> Outcome:
    """What an answer makes of copies of a case's arguments."""
    given, outcome = copy.deepcopy(case.arguments), Outcome()
    try:
        with torch.enable_grad():
            got = call(attempt, *given, what=case.what, cause=case.error)
            on = torch.is_grad_enabled()
        if not on:
            raise CheckFailed("gradients, after the call", "on", "off", GRADIENTS_OFF, sure=True)
        if not case.may_change:
            require_unchanged(attempt, given, case.arguments)
        if case.read and got is None and not case.may_change:
            raise CheckFailed(case.what, "a result", got, NOTHING)
        if case.read:
            got = call(case.read, got, *given, what=case.what, cause=case.form)
        outcome.values = values_of(case, got)
        if case.leaves:
            outcome.gradients = gradients_of(case.leaves(*given), got)
    except CheckFailed as failure:
        outcome.failure = failure
    return outcome


def values_of(case: Case, got: Any) -> dict[str, Any]:
    """A result by the parts of its case."""
    if not isinstance(case.expected, Parts):
        return {case.what: got}
    names = list(case.expected)
    if isinstance(got, dict) and list(got) == names:
        return got
    several = isinstance(got, (tuple, list)) or getattr(got, "ndim", 0) > 0
    if not several or len(got) != len(names):
        advice = NOTHING if got is None else case.form or f"return {len(names)} things"
        raise CheckFailed(case.what, f"{len(names)} things", got, advice)
    return dict(zip(names, got, strict=True))


def gradients_of(leaves: dict[str, Tensor], got: Any) -> dict[str, Tensor | None]:
    """The gradient of each leaf by one fixed weighting of a result's entries."""
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not isinstance(got, Tensor) or not got.requires_grad:
        return dict.fromkeys(leaves)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(got.dtype)
    what, total = f"the gradients of {' and '.join(leaves)}", (got * weights).sum()
    tensors, options = [*leaves.values()], {"allow_unused": True, "retain_graph": True}
    found = call(torch.autograd.grad, total, tensors, what=what, **options)
    return dict(zip(leaves, found, strict=True))


def judge(case: Case, outcome: Outcome) -> None:
    """Raise ``CheckFailed`` unless an outcome is what the case expects."""
    if outcome.failure:
        raise outcome.failure
    require_order(case, outcome)
    for name, expected in case.parts().items():
        compare(case, name, outcome.values[name], expected)
    if not case.leaves:
        return
    wanted = gradients_of(case.leaves(*case.arguments), case.expected)
    lost = [name for name, gradient in outcome.gradients.items() if gradient is None]
    reached = f"no gradient reaches {' and '.join(lost)}" if len(lost) == len(wanted) else ""
    for name, right in wanted.items():
        got = outcome.gradients.get(name)
        if got is None:
            advice = (
                f"{reached or f'{name} gets no gradient, so it would never be trained'}: {AWAY}"
            )
        else:
            advice = f"part of the path from {name} to the result carries no gradient ({AWAY}), or the value is right only by chance"
        if got is None or not same(got, right, max(case.tolerance, 1e-3)):
            raise CheckFailed(f"the gradient of {name}", *difference(got, right), advice)


def compare(case: Case, name: str, got: Any, expected: Any) -> None:
    """Raise ``CheckFailed`` unless one part is what is expected."""
    if got is None and expected is not None:
        raise CheckFailed(name, expected, got, NOTHING)
    form = "" if isinstance(case.expected, Parts) else case.form
    problem = kind_problem(got, expected, form)
    value = plain(got, expected)
    if not problem and same(value, expected, case.tolerance):
        if loose := loose_kind(got, expected):
            raise CheckFailed(name, expected, got, f"right in value, but {loose}", sure=True)
        return
    unlike = getattr(got, "shape", ()) != getattr(expected, "shape", ())
    own = case.advice if isinstance(case.advice, str) else case.advice.get(name, "")
    own = own(got) if callable(own) else own
    if isinstance(expected, list) and own:
        problem = ""  # what a list of facts lacks, its own advice says better
    fact = own and (case.read or isinstance(case.expected, Parts))  # says what is wrong with it
    known = problem or (unlike and form) or (has_nan(got) and case.nan) or fact
    advice = own if fact else known or own or (SHAPES if unlike else STEP_BY_STEP)
    forged = type(got).__module__ == "__main__" and type(expected).__module__ != "__main__"
    sure = forged and bool(problem)
    raise CheckFailed(name, *difference(value, expected), advice, sure=sure, vague=not known)


def require_order(case: Case, outcome: Outcome) -> None:
    """Raise ``CheckFailed`` if two parts of two kinds came in the wrong order."""
    names, got = list(case.parts()), list(outcome.values.values())
    kinds = [type(value) for value in case.parts().values()]
    swapped = len(set(kinds)) == len(got) == 2 and all(map(isinstance, got[::-1], kinds))
    if swapped and not all(map(isinstance, got, kinds)):
        advice = f"the order is wrong: {names[0]} comes first, then {names[1]}"
        raise CheckFailed(case.what, "two things", got, advice, sure=True)


def require_unchanged(attempt: Callable, given: Sequence, before: Sequence) -> None:
    """Require that what came in is as it was before the call."""
    try:
        names = list(inspect.signature(getattr(attempt, "forward", attempt)).parameters)
    except (TypeError, ValueError):
        names = []
    for index, (now, then) in enumerate(zip(given, before, strict=True)):
        name = names[index] if index < len(names) else f"argument {index + 1}"
        cause = (
            "the module that was passed in is changed, in its numbers, hooks, mode (train, eval) or gradients: leave it "
            "as it is, or work on copy.deepcopy of it"
            if isinstance(now, nn.Module)
            else "the argument is changed in place, as +=, mul_ and sort() do, so it changes for the caller too: "
            "make a new one"
        )
        if not untouched(now, then):
            raise CheckFailed(f"{name}, after the call", "as before", "changed", cause, sure=True)
