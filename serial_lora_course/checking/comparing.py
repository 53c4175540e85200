"""Whether two results are equal, and what is wrong with the kind of one."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isclose
from numbers import Integral, Rational, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serial_lora_course.checking.message import describe

NOTHING = "the function returns None here: is `return` missing, or does a search find nothing?"


def same(got: Any, value: Any, tolerance: float) -> bool:
    """Whether two results are equal, within a relative tolerance where they are not whole."""
    if isinstance(value, Tensor):
        if not isinstance(got, Tensor) or got.shape != value.shape:
            return False
        if not value.numel():
            return True
        got, value = got.detach().double(), value.detach().double()
        most = tolerance * max(1.0, float(value.nan_to_num(0, 0, 0).abs().max()))
        return torch.allclose(got, value, rtol=0, atol=most, equal_nan=True)
    if isinstance(value, (tuple, list)):
        fits = isinstance(got, (tuple, list)) and len(got) == len(value)
        return fits and all(same(a, b, tolerance) for a, b in zip(got, value, strict=True))
    if isinstance(value, Real) and isinstance(got, Real):
        if isinstance(value, Rational) and isinstance(got, Rational):
            return bool(got == value)
        if got != got and value != value:  # neither is a number
            return True
        return isclose(got, value, rel_tol=tolerance, abs_tol=tolerance / 100)
    if isinstance(value, (set, frozenset)) and isinstance(got, (set, frozenset)):
        return got == value
    return type(got) is type(value) and bool(got == value)


def plain(got: Any, expected: Any) -> Any:
    """A result whose tensors of one entry are numbers, where numbers are expected, and numpy's arrays
    and scalars plain lists and numbers."""
    if isinstance(got, np.generic) or (isinstance(got, np.ndarray) and _listed(expected)):
        got = got.tolist()
    several = isinstance(expected, (tuple, list)) and isinstance(got, (tuple, list))
    if several and len(got) == len(expected):
        return tuple(map(plain, got, expected))
    one = isinstance(got, Tensor) and got.numel() == 1 and isinstance(expected, Real)
    return got.item() if one else got


def _listed(expected: Any) -> bool:
    """Whether several numbers, or one, are expected in plain Python."""
    return isinstance(expected, (tuple, list, Real))


def kind_problem(got: Any, expected: Any, form: str = "") -> str:
    """What is wrong with the kind of a result, whatever its value; nothing if it is right."""
    got = got.tolist() if isinstance(got, np.ndarray) and _listed(expected) else got
    if got is None and expected is not None:
        return NOTHING
    kind = type(got).__name__
    kind = f"not {'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
    if isinstance(expected, (Tensor, Real, str)) and type(got).__module__ == "__main__":
        return (
            f"return a plain {type(expected).__name__}, {kind}, which is a class of your notebook"
        )
    if isinstance(expected, Tensor):
        number = isinstance(got, Real) and not isinstance(got, bool)
        hint = ": a plain number has no gradient, so leave .item() out" if number else ""
        return "" if isinstance(got, Tensor) else form or f"return a tensor, {kind}{hint}"
    if isinstance(expected, bool):
        hint = f"return a plain True or False, {kind}: bool(...) converts it"
        return "" if isinstance(got, (bool, np.bool_)) else form or hint
    if isinstance(expected, Fraction):
        hint = "/ rounds: Fraction(numerator, denominator) stays exact"
        return "" if isinstance(got, Rational) else form or hint
    if isinstance(expected, Real):
        if isinstance(got, Tensor) and got.numel() != 1:
            return form or "return one number, not a tensor of many: take the sum or the mean"
        fine = isinstance(got, (Real, Tensor)) and not isinstance(got, bool)
        return "" if fine else form or f"return a plain number, {kind}"
    if isinstance(expected, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            listed = isinstance(got, (tuple, list))
            name = type(expected).__name__
            return (
                form
                or f"return a {name} of {len(expected)}, {f'not {len(got)}' if listed else kind}"
            )
        return next(filter(None, map(kind_problem, got, expected)), "")
    sets = isinstance(expected, set) and isinstance(got, frozenset)
    fine = expected is None or isinstance(got, type(expected)) or sets
    name = "text" if isinstance(expected, str) else type(expected).__name__
    return "" if fine else form or f"return a {name}, {kind}"


def loose_kind(got: Any, expected: Any) -> str:
    """What is left to mend in a result that is right in value; nothing if its kind is right too."""
    if isinstance(got, np.ndarray):
        return ""
    if isinstance(expected, (tuple, list)):
        return next(filter(None, map(loose_kind, got, expected)), "")
    wider = isinstance(expected, Tensor) and (
        torch.promote_types(got.dtype, expected.dtype) != expected.dtype
    )
    if wider and got.is_floating_point():
        kinds = [str(each.dtype).removeprefix("torch.") for each in (got, expected)]
        return f"of type {kinds[0]}: keep the type of the inputs, {kinds[1]}"
    if isinstance(expected, Integral) and not isinstance(got, (Integral, np.bool_)):
        return f"a {type(got).__name__}: return a whole number, with // or int(...)"
    if isinstance(expected, Real) and isinstance(got, Tensor):
        return "still a tensor: .item() gives the plain number"
    return ""


def has_nan(got: Any) -> bool:
    """Whether a number or a tensor is, or holds, NaN."""
    return isinstance(got, (float, Tensor)) and bool(torch.as_tensor(got).isnan().any())


def untouched(now: Any, then: Any) -> bool:
    """Whether two things hold the same values; NaN is equal to NaN here."""
    if isinstance(now, nn.Module):
        state = [
            [(len(m._forward_hooks), m.training) for m in each.modules()]
            + [(p.requires_grad, p.grad is None) for p in each.parameters()]
            for each in (now, then)
        ]
        return state[0] == state[1] and untouched(now.state_dict(), then.state_dict())
    if isinstance(now, Tensor):
        return now.shape == then.shape and torch.equal(now.nan_to_num(7), then.nan_to_num(7))
    if isinstance(now, np.ndarray):
        return np.array_equal(now, then, equal_nan=True)
    if isinstance(now, Mapping):
        return list(now) == list(then) and all(untouched(now[key], then[key]) for key in now)
    if isinstance(now, (list, tuple)):
        return len(now) == len(then) and all(map(untouched, now, then))
    return now == then


def difference(got: Any, expected: Any) -> tuple[Any, Any]:
    """Expected and got as a learner should see them: of two large tensors the worst entry, of two
    long lists the first that differs."""
    if isinstance(expected, list) and isinstance(got, (list, tuple)) and len(expected) > 6:
        for place, (mine, right) in enumerate(zip(got, expected, strict=False)):
            if not same(mine, right, 1e-5):
                return f"{describe(right)} (entry {place})", mine
    tensors = isinstance(got, Tensor) and isinstance(expected, Tensor)
    if not tensors or got.shape != expected.shape:
        return expected, got
    flat_got, flat_expected = got.detach().flatten(), expected.detach().flatten()
    worst = int((flat_got.double() - flat_expected.double()).abs().nan_to_num(torch.inf).argmax())
    place = f"entry {worst} of {describe(expected)}" if expected.numel() > 4 else "worst entry"
    return f"{float(flat_expected[worst]):.6g} ({place})", f"{float(flat_got[worst]):.6g}"
