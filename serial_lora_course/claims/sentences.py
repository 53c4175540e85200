"""Sentences that say in words what a table of a lesson shows.

Each takes what the lesson measured and returns one sentence or more, worded by the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from serial_lora_course.models.weights import Backbone


def read_shares(shares: Tensor, things: Sequence[str]) -> str:
    """How many drawings are nearest to their own caption, and the surest mistake (lesson 00).

    Args:
        shares: (B, B), a row a drawing and a column a caption, in one order.
    """
    largest, nearest = (each.tolist() for each in shares.max(dim=-1))
    wrong = [row for row in range(len(things)) if nearest[row] != row]
    right = (
        f"{len(things) - len(wrong)} of {len(things)} drawings are nearest to their own caption; guessing would "
        f"get {1 / len(things):.0%} right."
    )
    if not wrong:
        return right
    worst = max(wrong, key=largest.__getitem__)
    return (
        f"{right} The surest mistake: the {things[worst]} is taken for a {things[nearest[worst]]}, with "
        f"{largest[worst]:.0%}. A large share means sure, not right."
    )


def read_clip(backbone: Backbone, card: Mapping[str, Any]) -> str:
    """How the CLIP of a lesson came to be (lesson 04).

    Args:
        card: what its pretraining noted; empty for a published model.
    """
    if not card:
        return _published(backbone, "OpenAI")
    concepts, found = card["measured_concepts"], card["measured"]["openmoji R@10"]
    return (
        f"It has {card['parameters']:,} parameters and was pretrained for {card['minutes']:.0f} minutes "
        f"({card['steps']:,} steps) on {card['training_pictures']:,} drawings in {len(card['data'])} "
        f"styles. OpenMoji's drawings of some concepts were hidden; {concepts} of these "
        f"look like no drawing that it was shown. Shown one of those, it has the right name among its "
        f"first ten guesses in {found:.0%} of the cases; by chance that would be {10 / concepts:.1%}."
    )


def read_sam(backbone: Backbone, card: Mapping[str, Any]) -> str:
    """How the SAM of a lesson came to be (lesson 06); as :func:`read_clip`."""
    if not card:
        return _published(backbone, "Meta")
    data, measured = card["data"], card["measured"]
    return (
        f"It was pretrained for {card['minutes']:.0f} minutes ({card['steps']:,} steps) on "
        f"{data['drawings']} over {len(data['photographs'])} photographs. On drawings of "
        f"that hand that were hidden from it, a box prompt reaches a Dice of "
        f"{measured['twemoji box Dice']:.2f} and a single point {measured['twemoji point Dice']:.2f}; on "
        f"OpenMoji's, another hand, a box reaches {measured['openmoji box Dice']:.2f}. A model that sees "
        f"nothing and fills the box would have {measured['openmoji filled box Dice']:.2f} there."
    )


def read_sd3(backbone: Backbone, card: Mapping[str, Any]) -> str:
    """How the SD3 of a lesson came to be (lesson 07); as :func:`read_clip`."""
    if not card:
        return _published(backbone, "Stability AI")
    measured = card["measured"]
    return (
        f"The transformer was pretrained for {card['minutes']:.0f} minutes ({card['steps']:,} steps) on "
        f"{card['data']['drawings']}, the autoencoder before that for "
        f"{card['autoencoder']['minutes']:.0f} minutes on "
        f"more styles than that. Given a hundred names, the transformer makes drawings in which the tiny CLIP "
        f"finds the right one of the hundred back in {measured['retrieval']:.0%} of the cases. In Twemoji's own "
        f"drawings it finds {measured['retrieval, real']:.0%}, and by chance it would be 1%."
        + (f" Both {card['history']}." if "history" in card else "")
    )


def _published(backbone: Backbone, publisher: str) -> str:
    parameters = sum(p.numel() for p in backbone.model.parameters())
    return (
        f"It is {backbone.name} as {publisher} published it, with {parameters:,} parameters. How it "
        "was pretrained its authors tell; here it is measured on pictures of another kind."
    )


def read_ways_in(dice_by_way: pd.Series, count: int) -> str:
    """What the wrong ways into SAM cost in Dice; the right way is the first (lesson 06)."""
    right, squashed = dice_by_way.iloc[0], dice_by_way["squashed, boxes too"]
    squash = right - squashed
    itself = (
        f"itself costs {squash:.2f}: the model knows things in their proportions."
        if squash > 0.01
        else f"itself changes it by {-squash:+.3f} on these drawings; a model that knows proportions "
        "would notice."
    )
    return (
        f"On {count} pictures, “{dice_by_way.idxmin()}” costs {right - dice_by_way.min():.2f} of "
        f"Dice. The squash by {itself}"
    )


def read_styles(by_style: pd.DataFrame, percent: int) -> str:
    """How far Serial LoRA brings SD3 towards each style (lesson 07).

    Args:
        by_style: a row a style, with ``fid``, ``base_fid``, ``clip_score``, ``base_clip_score``
            and ``way``, the share of the way from the unadapted model to real pictures.
        percent: of the training pictures.
    """
    below, way = by_style["fid"] < by_style["base_fid"], by_style["way"]
    score = (by_style["clip_score"] - by_style["base_clip_score"]).mean()
    return (
        f"With {percent}% of the pictures Serial LoRA brings FID to the style below the unadapted "
        f"model's on {int(below.sum())} of {len(by_style)} styles. It goes {way.min():.0%} "
        f"({way.idxmin()}) to {way.max():.0%} ({way.idxmax()}) of the way to real pictures. "
        f"CLIP-Score changes by {score:+.3f} on average."
    )
