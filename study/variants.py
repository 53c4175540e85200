"""Serial LoRA's predecessor, and one change of it at a time.

Serial LoRA adds W_p B A to each of W_q, W_k, W_v: one A and one B *shared*, in one *place*, in front of
attention, and in the *basis* of the pretrained weights. Each variant changes one of the three:

==================  ========================================  =================================
name                adds to W_p                               parameters a block
==================  ========================================  =================================
``lora_qkv``        B_p A_p, no sharing                       6 d r
``lora_tied``       B_p A, A shared                           4 d r
``serial_untied``   W_p B_p A_p, the basis without sharing    6 d r
``serial_rotated``  Q_p W_p B A, Q_p a random rotation        2 d r
``serial_random``   c_p Q_p B A, with the size of W_p         2 d r
``serial_ffn``      W_1 B A, in front of the feed-forward     2 d r
``repadapter``      W_p s B A, B in two groups, and a bias    1.5 d r + d + r
``repadapter_two``  the same, also before the feed-forward    twice that
==================  ========================================  =================================

``serial_rotated`` is what tells whether the pretrained basis matters: singular values and the
directions that W_p listens to stay, so that the same pair starts with gradients of the same size, and
only where its change goes is drawn by lot, for each projection and block anew. ``serial_random``
leaves nothing of W_p but its size (the root mean square of its singular values).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora.config import AdapterConfig
from serial_lora.layers import LoRA, SerialLoRA
from serial_lora.sites import AttentionSite
from study.opened import PARTS

NAME = "variant"


def put_in_variant(
    model: nn.Module,
    site: AttentionSite,
    names: Mapping[str, str],
    config: AdapterConfig,
    undo: ExitStack,
) -> None:
    """Put a fresh one of `VARIANTS` at one site.

    Args:
        names: of the layers that project its tokens.
    """
    block = model.get_submodule(site.name)
    adapter = VARIANTS[config.method](Place(model, site, names, undo), config)
    block.add_module(NAME, adapter.to(next(block.parameters()).device).train(block.training))
    undo.callback(block._modules.pop, NAME)


@dataclass(frozen=True)
class Place:
    """One block, opened: where a variant can act."""

    model: nn.Module
    site: AttentionSite
    names: Mapping[str, str]
    undo: ExitStack

    def layer(self, part: str) -> nn.Linear:
        return self.model.get_submodule(self.names[part])

    def after(self, part: str, change: Callable[[Tensor], Tensor]) -> None:
        """Add ``change(tokens)`` to what a projection makes of its tokens."""

        def add(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
            return output + change(args[0]).to(output.dtype)

        self.undo.callback(self.layer(part).register_forward_hook(add).remove)

    def before(self, layer: nn.Module, adapter: Callable[[Tensor], Tensor]) -> None:
        """Send what a layer reads through an adapter first."""
        handle = layer.register_forward_pre_hook(lambda _, args: (adapter(args[0]), *args[1:]))
        self.undo.callback(handle.remove)

    def before_attention(self, adapter: Callable[[Tensor], Tensor]) -> None:
        """Send the normed tokens through an adapter, before they are cut into windows.

        Where no layer gives them (SD3), q, k and v read them through it, with a dropout for each.
        """
        if self.site.entry is None:
            for part in PARTS:
                self.before(self.layer(part), adapter)
            return
        norm = self.model.get_submodule(self.site.entry)
        handle = norm.register_forward_hook(lambda _, args, output: adapter(output))
        self.undo.callback(handle.remove)

    def before_feed_forward(self, adapter: Callable[[Tensor], Tensor]) -> None:
        block = self.model.get_submodule(self.site.name)
        self.before(block.ff if hasattr(block, "ff") else block.mlp, adapter)


def _serial(place: Place, config: AdapterConfig) -> SerialLoRA:
    return SerialLoRA(place.site.width, config.rank, config.scale, config.dropout)


def lora_qkv(place: Place, config: AdapterConfig) -> nn.Module:
    """LoRA on what Serial LoRA reaches, the output projection left alone."""
    pairs = nn.ModuleDict()
    for part in PARTS:
        rows, columns = place.layer(part).weight.shape
        pairs[part] = LoRA(columns, rows, config.rank, config.scale, config.dropout)
        place.after(part, pairs[part])
    return pairs


def lora_tied(place: Place, config: AdapterConfig) -> nn.Module:
    """LoRA on q, k and v with one A for the three."""
    pairs = lora_qkv(place, config)
    for part in PARTS[1:]:
        pairs[part].lora_A = pairs["q"].lora_A
    return pairs


def serial_untied(place: Place, config: AdapterConfig) -> nn.Module:
    """A serial pair for each of q, k and v."""
    pairs = nn.ModuleDict({part: _serial(place, config) for part in PARTS})
    for part in PARTS:
        place.before(place.layer(part), pairs[part])
    return pairs


def serial_ffn(place: Place, config: AdapterConfig) -> nn.Module:
    """Serial LoRA's pair in RepAdapter's second place."""
    pair = _serial(place, config)
    place.before_feed_forward(pair)
    return pair


def serial_rotated(place: Place, config: AdapterConfig) -> nn.Module:
    """The pair's change through W_p, and then turned at random."""
    return _elsewhere(place, config, lambda weight: random_rotation(len(weight)) @ weight)


def serial_random(place: Place, config: AdapterConfig) -> nn.Module:
    """The pair's change through a random rotation in place of W_p, as large as W_p."""

    def through(weight: Tensor) -> Tensor:
        size = weight.norm() / math.sqrt(min(weight.shape))
        return size * random_rotation(max(weight.shape))[: weight.shape[0], : weight.shape[1]]

    return _elsewhere(place, config, through)


def _elsewhere(
    place: Place, config: AdapterConfig, through: Callable[[Tensor], Tensor]
) -> nn.Module:
    """A serial pair whose change goes through other, fixed matrices than W_q, W_k and W_v."""
    pair = _serial(place, config)
    for part in PARTS:
        matrix = through(place.layer(part).weight.detach().float().cpu())
        pair.register_buffer(f"through_{part}", matrix, persistent=False)
        # the buffer is looked up when it is needed: the module moves to another device
        place.after(
            part,
            lambda x, name=f"through_{part}": F.linear(pair.delta(x), pair.get_buffer(name)),
        )
    return pair


def random_rotation(width: int) -> Tensor:
    """An orthogonal matrix (width, width), all of them equally likely, from torch's generator."""
    q, r = torch.linalg.qr(torch.randn(width, width))
    return q * r.diagonal().sign()


class RepAdapter(nn.Module):
    """x + s (B (A x + a) + b), B block-diagonal in ``groups`` blocks (Luo et al. 2023, 2302.08106).

    A is drawn by Xavier's rule and the rest is zero at the start. With one group, without biases and
    without dropout it is Serial LoRA.

    Args:
        width: d, the size of a token.
        hidden: width of the bottleneck; ``groups`` divides it and d.
    """

    def __init__(
        self,
        width: int,
        hidden: int = 8,
        groups: int = 2,
        scale: float = 1.0,
        dropout: float = 0.1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.groups = scale, groups
        self.down = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Parameter(torch.zeros(groups, width // groups, hidden // groups))
        self.up_bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        if bias:
            nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d), in the type of x."""
        hidden = self.dropout(self.down(x)).unflatten(-1, (self.groups, -1))  # (..., groups, h / g)
        change = torch.einsum("...gh,gdh->...gd", hidden, self.up).flatten(-2)  # (..., d)
        if self.up_bias is not None:
            change = change + self.up_bias
        return x + self.scale * change.to(x.dtype)


def repadapter(place: Place, config: AdapterConfig) -> nn.Module:
    """RepAdapter's attention adapter, in the setting of its authors' code but for the lab's dropout."""
    adapter = RepAdapter(place.site.width, config.rank, scale=config.scale, dropout=config.dropout)
    place.before_attention(adapter)
    return adapter


def repadapter_two(place: Place, config: AdapterConfig) -> nn.Module:
    """RepAdapter in both of its places."""
    width, options = place.site.width, {"scale": config.scale, "dropout": config.dropout}
    both = nn.ModuleList(RepAdapter(width, config.rank, **options) for _ in range(2))
    place.before_attention(both[0])
    place.before_feed_forward(both[1])
    return both


VARIANTS: dict[str, Callable[[Place, AdapterConfig], nn.Module]] = {
    make.__name__: make
    for make in (
        lora_qkv,
        lora_tied,
        serial_untied,
        serial_rotated,
        serial_random,
        serial_ffn,
        repadapter,
        repadapter_two,
    )
}


def train_norms_and_biases(
    model: nn.Module, sites: Iterable[AttentionSite], undo: ExitStack
) -> None:
    """No adapter at all: the adapted blocks' own norms and biases learn, and are put back."""
    for block in (model.get_submodule(name) for name in dict.fromkeys(s.name for s in sites)):
        for parameter in block.parameters():
            if parameter.ndim == 1:  # of a norm, or a bias
                undo.callback(parameter.data.copy_, parameter.detach().clone())
                parameter.requires_grad_(True)
