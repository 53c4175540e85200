"""Every picture's Dice, since an average hides the pictures on which a model fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.pictures import as_array
from serial_lora_course.plots.style import (
    INK,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)
from serial_lora_course.plots.tables import require_shares


def plot_dice_per_picture(scores: Mapping[str, Sequence[float]]) -> Figure:
    """Every picture's Dice, since an average hides the pictures on which a model fails.

    Left, all pictures of each prediction as points, with the median as a bar. Then, for each
    prediction after the first, a picture's Dice before (across) and after (up): points above the
    diagonal got better, points below it worse.

    Args:
        scores: name to one Dice a picture, between 0 and 1, the pictures in the same order
            everywhere; the first is what the others are compared with. Names of methods, such as
            ``serial_lora``, get their title and colour.

    Raises:
        SerialLoRAError: if there are no scores, their numbers differ, or one is not a share.
    """
    columns = {name: np.asarray(values, float) for name, values in scores.items()}
    for name, values in columns.items() or [("a figure of scores", [])]:
        require_shares(values, name)
    if len({len(values) for values in columns.values()}) > 1:
        raise SerialLoRAError("the numbers of pictures differ; score the same pictures everywhere.")
    names = list(columns)
    first, others = names[0], names[1:]
    looks = [method_look(name) for name in names]
    looks[0] = looks[0] | {"color": QUIET, "marker": "o"}
    with house_style():
        width = 1.5 + 0.95 * len(names)
        figure = Figure(figsize=(max(4.6, width + 3.1 * len(others)), 3.5), layout="constrained")
        ratios = {"width_ratios": [width, *[3.1] * len(others)]}
        grid = figure.subplots(1, 1 + len(others), squeeze=False, sharey=True, gridspec_kw=ratios)
        _strip(grid[0, 0], list(columns.values()), looks)
        for axes, name, look in zip(grid[0, 1:], others, looks[1:], strict=True):
            _before_and_after(axes, columns[first], columns[name], looks[0]["label"], look)
        grid[0, 0].set(ylim=(-0.03, 1.03), ylabel="Dice of a picture")
    return with_description(figure, _score_words(columns))


def _strip(axes: Any, columns: Sequence[np.ndarray], looks: Sequence[Mapping[str, str]]) -> None:
    jitter = np.random.default_rng(0)  # sideways places only: they mean nothing
    for place, (values, look) in enumerate(zip(columns, looks, strict=True)):
        sideways = place + jitter.uniform(-0.24, 0.24, len(values))
        axes.scatter(sideways, values, s=12, color=look["color"], alpha=0.6, linewidths=0)
        median = float(np.median(values))
        axes.plot([place - 0.36, place + 0.36], [median, median], color=INK, linewidth=2)
    titles = [look["label"].replace(" ", "\n", 1) for look in looks]
    axes.set_xticks(range(len(looks)), titles, fontsize=9)
    axes.grid(axis="x", visible=False)
    axes.set(xlim=(-0.6, len(looks) - 0.4), title="every picture, median")


def _before_and_after(
    axes: Any, before: np.ndarray, after: np.ndarray, first: str, look: Mapping[str, str]
) -> None:
    worse = after < before
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
    axes.scatter(before[~worse], after[~worse], s=14, color=look["color"], alpha=0.75)
    axes.scatter(before[worse], after[worse], s=18, marker="x", color=INK, linewidths=1.2)
    axes.set(xlim=(-0.03, 1.03), aspect="equal", xlabel=first, title=look["label"])
    words = f"better: {int((after > before).sum())}\nworse (×): {int(worse.sum())}"
    axes.text(0.98, 0.03, words, ha="right", va="bottom", fontsize=9, transform=axes.transAxes)


def _score_words(columns: Mapping[str, np.ndarray]) -> str:
    before = next(iter(columns.values()))
    phrases = []
    for name, values in columns.items():
        title = method_look(name)["label"]
        text = f"{title}: median {np.median(values):.2f}, worst {values.min():.2f}"
        if values is not before:
            better, worse = int((values > before).sum()), int((values < before).sum())
            text += f", better on {better} and worse on {worse}"
        phrases.append(text)
    return f"Dice of each of {len(before)} pictures. {'; '.join(phrases)}."


def plot_dice_by_scale(
    scores: Mapping[str, Sequence[float]], method: str, scales: Sequence[float]
) -> Figure:
    """Dice against the adapter's scale: each picture as a grey line, their mean in colour.

    Args:
        scores: name of a picture to its Dice at each of the scales.
        method: whose colour and marker the mean has.
    """
    look = method_look(method)
    mean = np.mean(list(scores.values()), axis=0)
    with house_style():
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, values in enumerate(scores.values()):
            label = None if number else "one picture"
            axes.plot(scales, values, color=QUIET, linewidth=0.8, alpha=0.6, label=label)
        look["label"] = f"mean, {look['label']}"
        axes.plot(scales, mean, linewidth=2.5, **look)
        axes.set(xlabel="scale of the adapter (0: without it)", ylabel="Dice (higher is better)")
        axes.set(ylim=(0, 1.02), xticks=scales)
        axes.legend(loc="lower left", fontsize=9)
    phrases = ", ".join(
        f"{value:.2f} at {scale:g}" for scale, value in zip(scales, mean, strict=True)
    )
    words = f"Dice against the scale of the adapter, {len(scores)} pictures. Mean: {phrases}."
    return with_description(figure, words)


def plot_windows(picture: Any, seen: Mapping[str, np.ndarray], token: tuple[int, int]) -> Figure:
    """What one token attends to in some kinds of blocks: the rest of the picture is veiled.

    Args:
        picture: the square that the model sees.
        seen: title -> bool (grid, grid), the tokens that it attends to.
        token: row and column of the one.
    """
    with house_style():
        figure = Figure(figsize=(3.2 * len(seen), 3.5), layout="constrained")
        panels = figure.subplots(1, len(seen), squeeze=False)[0]
        for axes, (title, mask) in zip(panels, seen.items(), strict=True):
            grid = len(mask)
            axes.imshow(as_array(picture), extent=(0, grid, grid, 0))
            veil = np.ones((grid, grid, 4))
            veil[..., 3] = 0.75 * ~np.asarray(mask)
            axes.imshow(veil, extent=(0, grid, grid, 0), interpolation="nearest")
            axes.scatter(token[1] + 0.5, token[0] + 0.5, s=60, marker="s", color=VERMILION)
            axes.set(xlabel="tokens", title=title)
            axes.set_xticks(range(0, grid + 1, 8))
            axes.set_yticks(range(0, grid + 1, 8))
    counts = "; ".join(
        f"{title}, {np.asarray(m).sum()} of {np.size(m)}" for title, m in seen.items()
    )
    return with_description(
        figure,
        "A picture under a grid of tokens, one of which is marked, and the tokens that it attends to: "
        f"{counts}. Padding counts as tokens.",
    )
