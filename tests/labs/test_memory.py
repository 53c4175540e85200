"""What a training step keeps for its backward pass, counted by hand."""

import weakref

import torch
from torch import nn
from torch.nn import functional as F

from serial_lora_course.labs.memory import saved_activations


def bytes_kept(step, model: nn.Module) -> int:
    with saved_activations(model) as kept:
        step()
    return kept[0]


def test_saved_activations_of_steps_counted_by_hand():
    layer = nn.Linear(8, 4, bias=False)
    x = torch.randn(16, 8)

    def step():
        layer(x).exp().sum().backward()

    # linear keeps its input (its weight needs none: x has no gradient), exp keeps its output.
    assert bytes_kept(step, layer) == 4 * (16 * 8 + 16 * 4)

    frozen = nn.Linear(8, 8).requires_grad_(False)
    leaf = torch.randn(16, 8, requires_grad=True)

    def frozen_step():
        frozen(frozen(leaf)).sum().backward()

    assert bytes_kept(frozen_step, frozen) == 0  # weights only, which do not count


def test_counting_holds_on_to_nothing():
    """An output that its own backward pass needs, as a softmax's, was once kept for good."""
    x, weak = torch.randn(4, 8, requires_grad=True), []

    def step():
        shares = x.softmax(1)
        weak.append(weakref.ref(shares))
        shares.square().sum()

    assert bytes_kept(step, nn.Identity()) > 0
    assert weak[0]() is None


def test_copies_of_weights_are_told_from_what_has_their_shape():
    """A bfloat16 activation and a dropout mask as large as the frozen weight do count."""

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            hidden = F.dropout(layer(x), 0.5)
            (hidden * scale).sum().backward()

    layer, x = nn.Linear(8, 8, bias=False).requires_grad_(False), torch.randn(8, 8)
    scale = torch.randn(8, 8, requires_grad=True)
    x.requires_grad_(True)
    kept = bytes_kept(step, layer)
    # The mask, what is left of the hidden numbers, and the scale itself: a leaf that is no parameter.
    assert kept == 8 * 8 * (2 + 2 + 4)
    # A weight that learns: its copy, made for this step, and that of what it is multiplied with.
    assert bytes_kept(step, layer.requires_grad_(True)) == kept + 8 * 8 * (2 + 2)
