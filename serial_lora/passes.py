"""What is looked after as a whole model runs: who runs it, how many samples, and whether it learns.

One thread may switch adapters while others serve: passes that run are waited for, and new ones
wait. That holds for calls of the model itself, outside of code that torch.compile made.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError
from serial_lora.state import OVERRIDES, RECORD, Injection

NAME = "serial_lora"  # by which hooks are known: their numbers begin anew in a loaded model
PATIENCE = 60.0  # seconds that a pass of another thread is waited for
TURN = threading.Condition(threading.RLock())


def watch(root: nn.Module) -> None:
    """Have these functions called as the model begins and ends."""
    root._forward_pre_hooks[NAME] = _begin  # type: ignore[index]
    root._forward_pre_hooks_with_kwargs[NAME] = True  # type: ignore[index]
    root._forward_hooks[NAME] = _end  # type: ignore[index]
    root._forward_hooks_always_called[NAME] = True  # type: ignore[index]


def unwatch(root: nn.Module) -> None:
    for hooks in (
        root._forward_pre_hooks,
        root._forward_pre_hooks_with_kwargs,
        root._forward_hooks,
        root._forward_hooks_always_called,
    ):
        hooks.pop(NAME, None)  # type: ignore[call-overload]


@contextmanager
def alone(injection: Injection) -> Iterator[None]:
    """While no other thread runs the model; what its layers kept for one another is forgotten.

    Raises:
        SerialLoRAError: one does not come to an end.
    """
    own = threading.get_ident()
    with TURN:
        injection.waiting += 1
        try:
            if not TURN.wait_for(lambda: not injection.running - {own}, PATIENCE):
                raise SerialLoRAError(
                    f"another thread has been running the model for {PATIENCE:.0f} seconds; wait "
                    "for it, then try again."
                )
            yield
        finally:
            for adapted in injection.adapted:
                adapted.forget()
            injection.waiting -= 1
            TURN.notify_all()


def _begin(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    injection, own = vars(model)[RECORD], threading.get_ident()
    _count_samples(injection, [*args, *kwargs.values()])
    if model.training and torch.is_grad_enabled() and injection.training_passes < 2:
        injection.training_passes += 1
        if injection.training_passes == 2:
            _tell_who_does_not_learn(injection)
    with TURN:
        TURN.wait_for(lambda: not injection.waiting or own in injection.running)
        injection.running.add(own)


def _end(model: nn.Module, args: tuple, output: Any) -> None:
    if torch.compiler.is_compiling():
        return
    with TURN:
        vars(model)[RECORD].running.discard(threading.get_ident())
        TURN.notify_all()


def _count_samples(injection: Injection, arguments: list) -> None:
    """Inside `per_sample`, refuse a batch of another number of samples."""
    for override in reversed(OVERRIDES.get()):
        if override.open and override.injection is injection:
            pairs: Any = next(iter(override.acting.values()))
            if pairs is not None:
                sizes = list(_sizes(arguments, pairs.dimension + 1))
                if sizes and len(pairs.index) not in sizes:
                    raise pairs.misfit(sizes)
            return


def _sizes(arguments: Iterable, leading: int) -> Iterator[int]:
    """What may be the number of samples: sizes of tensors, in dicts too, and of lists."""
    for each in arguments:
        if isinstance(each, Tensor):
            yield from each.shape[:leading]
        elif isinstance(each, Mapping):
            yield from _sizes(each.values(), leading)
        elif isinstance(each, list):
            yield len(each)
            yield from _sizes([one for one in each if isinstance(one, Tensor)], leading)


def _tell_who_does_not_learn(injection: Injection) -> None:
    """Once, as the second step of a training begins: what the first step ran without gradients."""
    silent = [adapted.name for adapted in injection.adapted if adapted.gradient is False]
    if silent:
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        warnings.warn(
            f"the model itself runs {silent[0]}{more} without gradients, as under "
            "torch.no_grad, so the adapters there do not learn; leave them out with towers or "
            "blocks.",
            stacklevel=3,
        )
