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
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import partial
from math import isclose
from numbers import Integral, Rational, Real
from typing import Any

import numpy as np
import torch
from IPython.core.getipython import get_ipython
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks.failing import CheckFailed, describe, difference, likely_error

_REGISTRY: dict[str, Callable[..., str]] = {}
STRICT = ("SERIAL_LORA_STRICT", "NBGRADER_EXECUTION", "PYTEST_VERSION")
UNKNOWN = "none of the usual slips; print both on a tiny input, and compare shapes first"
UNKNOWN_NUMBER = "none of the usual slips; work the case above out on paper, step by step"


# ------------------------------------------------------------------------------ what a table holds


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
        got = self.read(got) if self.read else got
        if several:
            enough = isinstance(got, (tuple, list)) and len(got) == len(parts)
            require(enough, self.what, said, got, self.form or f"return {len(parts)} things")
        pairs = list(zip(parts, got if several else [got], strict=True))
        return pairs + (gradients(self, got, given) if self.leaves else [])


def exercise(number: str, verified: str = "") -> Callable[[Callable], Callable]:
    """Register the decorated function as the check of an exercise, such as ``"2.3"``.

    With ``verified``, the sentence for a right answer, the function gives the cases of a table.
    Without, it takes the learner's objects and returns that sentence.
    """

    def register(function: Callable) -> Callable:
        _REGISTRY[number] = partial(run_cases, function, verified) if verified else function
        return function

    return register


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
        with suppress(CheckFailed):
            seen += case.answers(attempt)
    fit = [c for c in failure.causes if all(part.explains(c, got) for part, got in seen)]
    failure.causes = fit or (failure.causes if tensor else [])


# ---------------------------------------------------------------------------------- putting it


def find_check(number: str) -> Callable[..., str]:
    """Return the check of one exercise; an unknown number names the ones that exist."""
    lesson = number.partition(".")[0]
    if lesson.isdigit():
        module = f"serial_lora_course.checks.lesson_{int(lesson):02d}"
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    if number not in _REGISTRY:
        known = sorted(key for key in _REGISTRY if key.partition(".")[0] == lesson)
        names = ", ".join(known) or "no checks"
        raise SerialLoRAError(f"There is no exercise {number!r}: lesson {lesson} has {names}.")
    return _REGISTRY[number]


def check(number: str, *attempt: Any) -> None:
    """Check the learner's ``attempt`` at one exercise and print how it stands.

    Right: what was verified. Still raising ``NotImplementedError``: a friendly line, and the
    notebook runs on with the package's own version. Wrong: expected, got and the likely cause, in
    red, and the notebook runs on too, unless one of the variables ``STRICT`` is set.

    Args:
        number: the number printed on the exercise's card, such as ``"2.3"``.
        attempt: the learner's function or class (two, where the exercise asks for two).

    Raises:
        CheckFailed: the attempt is wrong, in a test, under nbgrader or outside a notebook.
        SerialLoRAError: no such exercise.
    """
    try:
        verified = run_check(number, *attempt)
    except CheckFailed as failure:
        if get_ipython() is None or any(os.environ.get(name) for name in STRICT):
            raise
        print("\x1b[31m" + "\n".join(failure._render_traceback_()) + "\x1b[0m")
        return
    if verified is None:
        print(
            f"Exercise {number} is waiting for you. The notebook runs on without it: "
            "the cells below use the package's own version."
        )
    else:
        print(f"Exercise {number} is right. Verified: {verified}.")


def run_check(number: str, *attempt: Any) -> str | None:
    """Check an attempt without printing: what was verified, or None when it is still open.

    Raises:
        CheckFailed: the attempt is wrong.
        SerialLoRAError: no such exercise.
    """
    function = find_check(number)
    try:
        with torch.random.fork_rng(devices=[]):  # a check leaves the lesson's random numbers alone
            torch.manual_seed(0)
            return function(*attempt)
    except NotImplementedError:
        return None
    except CheckFailed as failure:
        failure.number = number
        raise


def call(
    attempt: Callable, *arguments: Any, what: str = "", cause: str = "", **keywords: Any
) -> Any:
    """Call the learner's code; an error in it becomes a ``CheckFailed`` that keeps its traceback.

    ``NotImplementedError`` passes through, as it means that the exercise is still open.
    ``cause`` replaces the guessed likely cause.
    """
    try:
        return attempt(*arguments, **keywords)
    except (NotImplementedError, CheckFailed):
        raise
    except Exception as error:
        shapes = ", ".join(describe(argument) for argument in arguments)
        what = what or f"a call with {shapes or 'no arguments'}"
        told = f"{type(error).__name__}: {error}"
        raise CheckFailed(what, "a result", told, cause or likely_error(error)) from error


# --------------------------------------------------------------------------- what is asked of all


def require(condition: bool, what: str, expected: Any, got: Any, cause: str) -> None:
    """Require anything, with all four parts of the message given."""
    if not condition:
        raise CheckFailed(what, expected, got, cause)


def compare(
    what: str, got: Any, expected: Any, causes: Mapping[str, Any] | None = None, **advice: Any
) -> None:
    """Require that ``got`` is what is expected; ``advice`` as in :class:`Advice`."""
    require_returned(what, got, expected)
    Part(what, expected, causes or {}, **advice).compare(got)


def require_returned(what: str, got: Any, expected: Any) -> None:
    """Require that the learner's function returned anything, where something is expected."""
    cause = "the function returns nothing: is `return` missing?"
    require(got is not None or expected is None, what, expected, got, cause)


def require_unchanged(attempt: Callable, given: Sequence, before: Sequence) -> None:
    """Require that what came in is as it was before the call."""
    try:
        names = list(inspect.signature(getattr(attempt, "forward", attempt)).parameters)
    except (TypeError, ValueError):
        names = []
    for index, (now, then) in enumerate(zip(given, before, strict=True)):
        name = names[index] if index < len(names) else f"argument {index + 1}"
        cause = (
            "what came in is changed, in its numbers or by a hook: work on copy.deepcopy of it"
            if isinstance(now, nn.Module)
            else "what came in is changed in place (as +=, mul_ and sort() do): whoever else holds "
            "it has another one now, so make a new one"
        )
        require(untouched(now, then), f"{name}, after the call", "as before", "changed", cause)


def untouched(now: Any, then: Any) -> bool:
    """Whether two things hold the same values; NaN is equal to NaN here."""
    if isinstance(now, nn.Module):
        hooks = [[len(m._forward_hooks) for m in each.modules()] for each in (now, then)]
        return hooks[0] == hooks[1] and untouched(now.state_dict(), then.state_dict())
    if isinstance(now, Tensor):
        return now.shape == then.shape and torch.equal(now.nan_to_num(7), then.nan_to_num(7))
    if isinstance(now, Mapping):
        return list(now) == list(then) and all(untouched(now[key], then[key]) for key in now)
    if isinstance(now, (list, tuple)):
        return len(now) == len(then) and all(map(untouched, now, then))
    return now == then


def gradients(case: Case, got: Any, given: tuple) -> list[tuple[Part, Any]]:
    """The gradient of each leaf of a case, by the reference and by the learner's result."""
    own, leaves = case.leaves(*given), case.leaves(*case.arguments)
    weights = torch.randn_like(case.expected)
    total = (case.expected * weights).sum()
    wanted = torch.autograd.grad(total, [*leaves.values()], retain_graph=True)
    found = [None] * len(own)
    if isinstance(got, Tensor) and got.shape == weights.shape and got.requires_grad:
        found = torch.autograd.grad((got * weights).sum(), [*own.values()], allow_unused=True)
    lost = [name for name, gradient in zip(own, found, strict=True) if gradient is None]
    away = "leave no_grad, detach, .data, .item() and masks of True and False away"
    reached = f"no gradient reaches {' and '.join(own)}" if len(lost) == len(own) else None
    parts = []
    for name, right, gradient in zip(own, wanted, found, strict=True):
        cause = f"{reached or f'{name} gets no gradient, and would never learn'}: {away}"
        partly = f"a part of the way from {name} to the result is cut off: {away}"
        advice = {"form": cause, "otherwise": partly, "tolerance": 1e-3}
        parts.append((Part(f"the gradient of {name}", right, **advice), gradient))
    return parts


def kind_problem(got: Any, expected: Any, form: str = "") -> str:
    """What is wrong with the kind of a result, whatever its value; nothing if it is right."""
    kind = f"not a {type(got).__name__}"
    if isinstance(expected, Tensor):
        number = isinstance(got, Real) and not isinstance(got, bool)
        hint = "; a plain number has no gradient, so leave .item() away" if number else ""
        return "" if isinstance(got, Tensor) else form or f"a tensor is wanted, {kind}{hint}"
    if isinstance(expected, bool):
        hint = f"a plain True or False is wanted, {kind}: bool(...) makes one of a tensor"
        return "" if isinstance(got, (bool, np.bool_)) else form or hint
    if isinstance(expected, Fraction):
        hint = "division with / rounds: Fraction(numerator, denominator) stays exact"
        return "" if isinstance(got, Rational) else form or hint
    if isinstance(expected, Real):
        if isinstance(got, Tensor) and got.numel() != 1:
            return form or "one number is wanted, and that is a tensor of many: sum, or average"
        fine = isinstance(got, (Real, Tensor)) and not isinstance(got, bool)
        return "" if fine else form or f"a plain number is wanted, {kind}"
    if isinstance(expected, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            return form or f"return {len(expected)} things, in that order"
        return next(filter(None, map(kind_problem, got, expected)), "")
    fine = expected is None or isinstance(got, type(expected))
    name = "text" if isinstance(expected, str) else type(expected).__name__
    return "" if fine else form or f"a {name} is wanted, {kind}"


def plain(got: Any, expected: Any) -> Any:
    """A result whose tensors of one entry are numbers, where numbers are expected."""
    if isinstance(expected, (tuple, list)) and isinstance(got, (tuple, list)):
        return tuple(map(plain, got, expected))
    one = isinstance(got, Tensor) and got.numel() == 1 and isinstance(expected, Real)
    return got.item() if one else got


def loose_kind(got: Any, expected: Any) -> str:
    """What is left to mend in a result that is right in value; nothing if its kind is right too."""
    if isinstance(expected, (tuple, list)):
        return next(filter(None, map(loose_kind, got, expected)), "")
    if isinstance(expected, Integral) and not isinstance(got, Integral):
        return f"a {type(got).__name__}: a whole number is wanted, by // or int(...)"
    if isinstance(expected, Real) and isinstance(got, Tensor):
        return "still a tensor: .item() makes a plain number of it"
    return ""


def has_nan(got: Any) -> bool:
    """Whether a number or a tensor is, or holds, NaN."""
    return isinstance(got, (float, Tensor)) and bool(torch.as_tensor(got).isnan().any())


def same(got: Any, value: Any, tolerance: float) -> bool:
    """Whether two results are equal, within a relative tolerance where they are not whole."""
    if isinstance(value, Tensor):
        if not isinstance(got, Tensor) or got.shape != value.shape:
            return False
        if not value.numel():
            return True
        got, value = got.detach().double(), value.detach().double()
        return bool((got - value).abs().max() <= tolerance * max(1.0, float(value.abs().max())))
    if isinstance(value, (tuple, list)):
        fits = isinstance(got, (tuple, list)) and len(got) == len(value)
        return fits and all(same(a, b, tolerance) for a, b in zip(got, value, strict=True))
    if isinstance(value, Real) and isinstance(got, Real):
        if isinstance(value, Rational) and isinstance(got, Rational):
            return bool(got == value)
        return isclose(got, value, rel_tol=tolerance, abs_tol=tolerance / 100)
    return type(got) is type(value) and bool(got == value)
