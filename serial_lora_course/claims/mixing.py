"""Sentences of lesson 10: what mixtures of two adapters reach, and what a switch costs.

Accuracies are in per cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from serial_lora.counting import ParameterCount


def _gains(alone: pd.DataFrame, tasks: Sequence[str]) -> tuple[pd.Series, pd.DataFrame]:
    """The base's accuracies, and how far each task's adapter (row) moves each task (column)."""
    base = alone.loc["the base"]
    rows = {task: alone.loc[f"adapter of {task}"] - base for task in tasks}
    return base, pd.DataFrame(rows).T


def read_alone(alone: pd.DataFrame, tasks: Sequence[str]) -> str:
    """What each adapter brings its own task, and what it does to the other.

    Args:
        alone: accuracy; the rows ``the base`` and ``adapter of TASK``, a column a task.
    """
    _, gains = _gains(alone, tasks)
    own = " and ".join(f"{task} by {gains.loc[task, task]:+.1f} points" for task in tasks)
    other = " and ".join(
        f"{task} by {gains.loc[adapter, task]:+.1f}"
        for task, adapter in zip(tasks, reversed(tasks), strict=True)
    )
    return f"A task's own adapter changes {own}. The other task's adapter changes {other}."


def read_halves(
    halves: Mapping[str, Mapping[str, float]], alone: pd.DataFrame, tasks: Sequence[str]
) -> str:
    """What half of each adapter keeps of what both gain on their own tasks, by way of mixing."""
    base, gains = _gains(alone, tasks)
    whole = sum(gains.loc[task, task] for task in tasks)
    kept = {
        way: sum(row[task] - base[task] for task in tasks) / whole for way, row in halves.items()
    }
    exact, averaged = kept["exact sum"], kept["averaged factors"]
    return (
        f"Half of each, added exactly, keeps {exact:.0%} of what the two adapters gain on their own "
        f"tasks together; averaged factors keep {averaged:.0%}."
    )


def read_orders(table: pd.DataFrame, pictures: Mapping[str, int]) -> str:
    """How far sum and chains lie apart, beside what one test picture is.

    Args:
        table: accuracy; a row a mixture, a column a task.
        pictures: task -> how many pictures test it.
    """
    spread = table.max() - table.min()
    apart = " and ".join(f"{spread[task]:.1f} points apart on {task}" for task in table)
    one = " and ".join(f"{100 / pictures[task]:.1f}" for task in table)
    return f"The {len(table)} rows lie {apart}; one test picture is {one} points."


def read_switch(serial: ParameterCount, lora: ParameterCount) -> str:
    """What a switch copies with either method at one rank, and how many adapters a gigabyte holds."""
    held = [f"{int(1e9 // count.adapter_bytes):,}" for count in (serial, lora)]
    return (
        f"A switch copies {serial.adapter_bytes:,} bytes with Serial LoRA and "
        f"{lora.adapter_bytes:,} with LoRA, {lora.adapter_bytes / serial.adapter_bytes:g} times as "
        f"many. A gigabyte holds {held[0]} adapters of this size, or {held[1]}. The base, "
        f"{4 * (serial.total - serial.adapter) / 1e6:.0f} MB, is there once either way."
    )
