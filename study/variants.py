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
``serial_even``     c_p U_p V_p^T B A, U_p S_p V_p^T = W_p    2 d r
``serial_uneven``   Q_p W_p Q'_p B A                          2 d r
``serial_ffn``      W_1 B A, before the feed-forward          2 d r
``repadapter``      W_p s B A, B in two groups, and a bias    1.5 d r + d + r
==================  ========================================  =================================

``serial_rotated`` is what tells whether the pretrained basis matters: singular values and the
directions that W_p listens to stay, so that the same pair starts with gradients of the same size, and
only where its change goes is drawn by lot, for each projection and block anew. ``serial_random``
leaves nothing of W_p but its size (the root mean square of its singular values). The next two, which
were added last, leave one half of W_p each: its directions, or how it stretches. ``serial_ffn`` is the
library's own, `SerialLoRAConfig(places=("feed_forward",))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora import LoRAConfig, eject, inject
from serial_lora.attention import find_sites
from serial_lora.config import AdapterConfig
from serial_lora.layers import LoRA
from serial_lora.sites import Site

NAME, TWICE = "variant", "repadapter_two"
PARTS = ("q", "k", "v")
Pairs = Mapping[str, LoRA]  # of q, k and v
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class StudyAdapter(AdapterConfig):
    """An adapter of the study; the rank is its size, whatever that is."""

    method: str = ""
    put: Callable[..., None] | None = None  # (model, sites, this, an ExitStack that undoes it)

    def put_in(self, model: nn.Module, undo: ExitStack) -> None:
        """Freeze the model and put fresh adapters into it, until ``undo`` closes."""
        sites = find_sites(model, self.towers, self.blocks, self.stream)
        for parameter in model.parameters():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
        model.requires_grad_(False)
        self.put(model, sites, self, undo)


# ------------------------------------------------------------------------- beside q, k and v


class Through(LoRA):
    """LoRA whose change goes through a fixed matrix, M B A, of M (rows, d) and B (d, r)."""

    def delta(self, x: Tensor) -> Tensor:
        return F.linear(super().delta(x), self.matrix)


def go_through(pairs: Pairs, matrices: Weights) -> None:
    for part, pair in pairs.items():
        pair.__class__ = Through
        pair.register_buffer("matrix", matrices[part], persistent=False)


def share(pairs: Pairs, *names: str) -> None:
    """One A for q, k and v, or one A and one B."""
    for pair in pairs.values():
        for name in names:
            setattr(pair, name, getattr(pairs["q"], name))


def serial_rotated(pairs: Pairs, weights: Weights) -> None:
    share(pairs, "lora_A", "lora_B")
    go_through(pairs, {part: random_rotation(W) @ W for part, W in weights.items()})


def serial_random(pairs: Pairs, weights: Weights) -> None:
    share(pairs, "lora_A", "lora_B")
    sizes = {part: W.norm() / len(W) ** 0.5 for part, W in weights.items()}
    go_through(pairs, {part: sizes[part] * random_rotation(W) for part, W in weights.items()})


def serial_even(pairs: Pairs, weights: Weights) -> None:
    share(pairs, "lora_A", "lora_B")
    go_through(pairs, {part: even(W) for part, W in weights.items()})


def serial_uneven(pairs: Pairs, weights: Weights) -> None:
    share(pairs, "lora_A", "lora_B")
    go_through(pairs, {p: random_rotation(W) @ W @ random_rotation(W) for p, W in weights.items()})


def even(weight: Tensor) -> Tensor:
    """U V^T of W = U S V^T, as large as W: its directions, all of them stretched alike."""
    U, _, Vh = torch.linalg.svd(weight)
    return U @ Vh * weight.norm() / len(weight) ** 0.5


def random_rotation(weight: Tensor) -> Tensor:
    """An orthogonal matrix as wide as this one, all of them equally likely, from torch's generator."""
    return nn.init.orthogonal_(torch.empty(len(weight), len(weight))).to(weight.device)


BESIDE: dict[str, Callable[[Pairs, Weights], None]] = {
    "lora_qkv": lambda pairs, weights: None,
    "lora_tied": lambda pairs, weights: share(pairs, "lora_A"),
    "serial_untied": go_through,
    "serial_rotated": serial_rotated,
    "serial_random": serial_random,
    "serial_even": serial_even,
    "serial_uneven": serial_uneven,
}
"""What is made of LoRA's pairs on q, k and v; W is square there."""


def put_beside(
    model: nn.Module, sites: Iterable[Site], config: StudyAdapter, undo: ExitStack
) -> None:
    """Put one of `BESIDE` into a model, until ``undo`` closes."""
    settings = (getattr(config, each.name) for each in fields(AdapterConfig))
    inject(model, LoRAConfig(*settings, parts=PARTS))
    undo.callback(eject, model)
    for site in sites:
        block = model.get_submodule(site.name)
        pairs, weights = {}, {}
        for part in PARTS:
            projection = site.projections[part]
            pairs[part] = block.get_submodule(f"lora_{part}{site.suffix}")
            weights[part] = projection.weight(model)[projection.row_slice].detach().float().clone()
        BESIDE[config.method](pairs, weights)


# ------------------------------------------------------------------------- in front of attention


class RepAdapter(nn.Module):
    """x + s (B (A x + a) + b), B block-diagonal in ``groups`` blocks (Luo et al. 2023, 2302.08106).

    A is drawn by Xavier's rule and the rest is zero at the start. With one group, without biases and
    without dropout it is Serial LoRA.

    Args:
        width: d, the size of a token.
        hidden: width of the bottleneck; ``groups`` divides it and d.
    """

    def __init__(
        self, width: int, hidden: int, scale: float = 1.0, dropout: float = 0.1, groups: int = 2
    ) -> None:
        super().__init__()
        self.scale, self.groups = scale, groups
        self.down = nn.Linear(width, hidden)
        self.up = nn.Parameter(torch.zeros(groups, width // groups, hidden // groups))
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d), in the type of x."""
        hidden = self.dropout(self.down(x)).unflatten(-1, (self.groups, -1))  # (..., groups, h / g)
        change = torch.einsum("...gh,gdh->...gd", hidden, self.up).flatten(-2)  # (..., d)
        return x + self.scale * (change + self.up_bias).to(x.dtype)


def put_before(
    model: nn.Module, sites: Iterable[Site], config: StudyAdapter, undo: ExitStack
) -> None:
    """Put RepAdapters before the attention of a model that is frozen, until ``undo`` closes.

    Those of both places come before the feed-forward as well.
    """
    size = (config.rank, config.scale, config.dropout)
    for site in sites:
        block = model.get_submodule(site.name)
        both = [RepAdapter(site.width, *size) for _ in range(2 if config.method == TWICE else 1)]
        hooks = _hooks(model, site, both[0])
        for second in both[1:]:
            before = lambda _, args, second=second: second(args[0])  # noqa: E731
            hooks.append(block.mlp.register_forward_pre_hook(before))
        for hook in hooks:
            undo.callback(hook.remove)
        device = next(block.parameters()).device
        block.add_module(NAME, nn.ModuleList(both).to(device).train(block.training))
        undo.callback(block._modules.pop, NAME)


def _hooks(model: nn.Module, site: Site, adapter: nn.Module) -> list:
    """Where no LayerNorm gives the tokens (SD3), q, k and v read them through the adapter."""
    block = model.get_submodule(site.name)
    norm = getattr(block, "ln_1", getattr(block, "norm1", None))  # of CLIP and of SAM
    if isinstance(norm, nn.LayerNorm):
        return [norm.register_forward_hook(lambda _, args, output: adapter(output))]
    change = lambda _, args: (adapter(args[0]), *args[1:])  # noqa: E731
    readers = dict.fromkeys(projection.module for projection in site.readers.values())
    return [model.get_submodule(name).register_forward_pre_hook(change) for name in readers]
