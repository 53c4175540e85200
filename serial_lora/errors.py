"""The one kind of error that is meant for the person at the keyboard, and the sentences that files share."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
"""Adapters are kept, and optimizers compute, in float32."""


class SerialLoRAError(ValueError):
    """One sentence that says what is wrong and what to do about it.

    The command line prints the sentence without a traceback and ends with exit code 2. Whatever
    raises this error has changed nothing: no module, no file. What takes an adapted model raises it
    where there are no adapters or the model was rebuilt since, and what changes adapters where they
    are merged or inside a `with` block; no docstring says that again.
    """


NO_ADAPTERS = (
    "the model has no adapters; call inject(model, config) first, or pass the larger model that "
    "inject was given."
)


def cut(text: object, length: int = 100) -> str:
    """What somebody else has written, for a sentence: on one line, and no longer than this."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: length + 1])
    return line if len(line) <= length else f"{line[:length]}..."


def require_number(
    name: str,
    value: Any,
    *,
    whole: bool = False,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a value that is no number finite in float32, or not within these bounds.

    Args:
        name: what the sentence calls the value.
        whole: only an int will do; True and False are no numbers.
        least, above, below: bounds; the first is within, the other two are not.
    """
    kinds = int if whole else (int, float)
    good = isinstance(value, kinds) and not isinstance(value, bool)
    good = good and abs(value) <= (sys.maxsize if whole else LARGEST_FLOAT32)
    good = good and (least is None or value >= least) and (above is None or value > above)
    if good and (below is None or value < below):
        return
    bounds = {"of at least": least, "above": above, "below": below}
    wanted = [f"a {'whole' if whole else 'finite'} number"]
    wanted += [f"{words} {bound}" for words, bound in bounds.items() if bound is not None]
    raise SerialLoRAError(f"{name} must be {' '.join(wanted)}, not {value!r}; choose another.")


def require_names(what: str, names: Any, *, or_none: bool = False) -> list[Any]:
    """The names in a list; refuse what is none: no names, one by itself, or a set, without order."""
    kinds = (str, type(None)) if or_none else str
    listed = isinstance(names, Sequence) and not isinstance(names, str | bytes)
    if not listed or not names or not all(isinstance(name, kinds) for name in names):
        raise SerialLoRAError(f"{what} are a list of names, not {names!r}; choose others.")
    return list(names)


def require_name(name: object) -> None:
    """Refuse what is no name of an adapter, such as None, which elsewhere is the active one."""
    if not isinstance(name, str):
        raise SerialLoRAError(f"an adapter's name is a str, not {name!r}; choose one.")


def require_choice(what: str, name: object, known: Collection[str]) -> None:
    """Refuse a name that is none of those that there are."""
    if name not in known:
        raise SerialLoRAError(f"There is no {what} {name!r}; choose from {', '.join(known)}.")


def require_finite(tensors: Mapping[str, Tensor], done: str) -> None:
    """Refuse values that are not finite in the number type that adapters are kept in."""
    for name, tensor in tensors.items():
        if not tensor.float().isfinite().all():
            raise SerialLoRAError(
                f"{cut(name)} holds values that are not finite numbers, so the training diverged and "
                f"nothing was {done}; train again with a smaller learning rate, or take an earlier file."
            )


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Whatever stands in a file in place of what should, in one sentence."""
    try:
        yield
    except Exception as error:  # the libraries that read have their own classes
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise SerialLoRAError(
            f"{what} cannot be read or is damaged ({cut(why)}); check its name and rights, or save "
            "the adapter again."
        ) from error


@contextmanager
def writing(path: object) -> Iterator[None]:
    """What the system refuses, in one sentence."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:  # a name with a NUL is a ValueError
        why = getattr(error, "strerror", None) or error
        raise SerialLoRAError(
            f"{path} could not be written ({why}); free some space or choose another folder."
        ) from error
