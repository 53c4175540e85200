"""The course's small CLIP, opened at one block, whose q, k and v a function of the lesson reads from the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures

Read = Callable[[Tensor], Iterable[Tensor]]
"""From tokens (..., d), behind the block's norm, to q, k and v, each (..., d)."""


class OpenedCLIP:
    """CLIP before some drawings; what lies before the block is computed once, and all of it is frozen.

    Attributes:
        W: W_q, W_k and W_v of the block, one below the other, (3d, d).
        labels: of the drawings to train on and, second, to test on.
    """

    def __init__(self, block: int, dataset: str = "symbols", every: int = 4):
        backbone, self.data = load_clip(), load_classification(dataset)
        self.clip = backbone.model.requires_grad_(False)
        self.texts = encode_prompts(self.clip, backbone.tokenizer(self.data.prompts()))
        blocks = self.clip.visual.transformer.resblocks
        self.block, self.later = blocks[block], blocks[block + 1 :]
        self.W = self.block.attn.in_proj_weight.detach()
        self.labels, self.tokens = [], []
        for samples in ([*self.data.train][::every], [*self.data.test]):
            pictures, labels = zip(*samples, strict=True)
            tokens = self.clip.visual._embeds(
                torch.stack([*map(backbone.test_transform, pictures)])
            )
            for earlier in blocks[:block]:
                tokens = earlier(tokens)
            self.tokens.append(tokens)
            self.labels.append(torch.tensor(labels))

    def scores(self, read: Read, tokens: Tensor) -> Tensor:
        """How near each drawing is to each class's sentence, (N, classes)."""
        attn, visual = self.block.attn, self.clip.visual
        biases = attn.in_proj_bias.chunk(3)
        parts = (part + b for part, b in zip(read(self.block.ln_1(tokens)), biases, strict=True))
        q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        x = tokens + attn.out_proj(mixed)
        x = x + self.block.mlp(self.block.ln_2(x))
        for later in self.later:
            x = later(x)
        image = F.normalize(visual._pool(x)[0] @ visual.proj, dim=-1)
        return self.clip.logit_scale.exp() * image @ self.texts.T

    def loss(self, read: Read) -> Tensor:
        """Cross-entropy on the drawings to train on."""
        return F.cross_entropy(self.scores(read, self.tokens[0]), self.labels[0])

    @torch.no_grad()
    def right(self, read: Read) -> int:
        """How many test drawings get their own name."""
        said = self.scores(read, self.tokens[1]).argmax(dim=-1)
        return int((said == self.labels[1]).sum())

    @torch.no_grad()
    def show(self, read: Read) -> Figure:
        """The first test drawing of each kind, with the answer over it."""
        said = self.scores(read, self.tokens[1]).argmax(dim=-1)
        kinds: Sequence[str] = [name.split(" ", 1)[-1] for name in self.data.class_names]
        firsts = [self.labels[1].tolist().index(c) for c in range(len(kinds))]
        titles = [
            f"{kinds[said[i]]} ✓" if said[i] == c else f"{kinds[said[i]]} ✗\n({kinds[c]})"
            for c, i in enumerate(firsts)
        ]
        return show_pictures([self.data.test[i][0] for i in firsts], titles, columns=8, size=1.45)
