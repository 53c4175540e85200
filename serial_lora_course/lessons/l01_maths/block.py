"""The course's small CLIP, opened at one block, whose q, k and v a function of the lesson reads from the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures

Read = Callable[[Tensor], Iterable[Tensor]]  # tokens (..., d), behind the block's norm, to q, k, v


class OpenedCLIP:
    """CLIP, frozen, before drawings to train on and, second, to test on. What the block gets is computed once."""

    def __init__(self, block: int, dataset: str = "symbols", every: int = 4):
        backbone, self.data = load_clip(), load_classification(dataset)
        self.clip, self.prepare = backbone.model.requires_grad_(False), backbone.test_transform
        self.texts = encode_prompts(self.clip, backbone.tokenizer(self.data.prompts()))
        earlier = self.clip.visual.transformer.resblocks[:block]
        self.block, *self.later, self.last = self.clip.visual.transformer.resblocks[block:]
        self.W = self.block.attn.in_proj_weight.detach()  # W_q, W_k and W_v, (3d, d)
        self.labels, self.tokens = [], []
        for samples in ([*self.data.train][::every], [*self.data.test]):
            pictures, labels = zip(*samples, strict=True)
            tokens = self.clip.visual._embeds(torch.stack([*map(self.prepare, pictures)]))
            for each in earlier:
                tokens = each(tokens)
            self.tokens.append(tokens)
            self.labels.append(torch.tensor(labels))

    def scores(self, read: Read, tokens: Tensor) -> Tensor:
        """How near each drawing is to each class's sentence, (N, classes)."""
        attn, visual = self.block.attn, self.clip.visual
        rows = self.block.ln_1(tokens).flatten(0, 1)  # one product of two matrices is the fastest
        parts = zip(read(rows), attn.in_proj_bias.chunk(3), strict=True)
        heads = (*tokens.shape[:2], attn.num_heads, -1)
        q, k, v = ((p + b).reshape(heads).transpose(1, 2) for p, b in parts)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        x = tokens + attn.out_proj(mixed)
        x = x + self.block.mlp(self.block.ln_2(x))
        for later in self.later:
            x = later(x)
        every = self.last.ln_1(x)  # of the last block CLIP reads the first token alone
        x = x[:, :1] + self.last.attention(q_x=every[:, :1], k_x=every, v_x=every)
        x = x + self.last.mlp(self.last.ln_2(x))
        image = F.normalize(visual._pool(x)[0] @ visual.proj, dim=-1)
        return self.clip.logit_scale.exp() * image @ self.texts.T

    def loss(self, read: Read) -> Tensor:
        """Cross-entropy on the drawings to train on."""
        return F.cross_entropy(self.scores(read, self.tokens[0]), self.labels[0])

    @torch.no_grad()
    def right(self, read: Read) -> int:
        """How many test drawings get their own name."""
        return int((self.scores(read, self.tokens[1]).argmax(dim=-1) == self.labels[1]).sum())

    @torch.no_grad()
    def show(self, read: Read) -> Figure:
        """The first test drawing of each kind, with its name and, below, the answer over it."""
        kinds = [name.split(" ", 1)[-1] for name in self.data.class_names]
        firsts = [self.labels[1].tolist().index(c) for c in range(len(kinds))]
        said = [kinds[c] for c in self.scores(read, self.tokens[1][firsts]).argmax(dim=-1)]
        titles = [f"{b}\n{a} {'✓' if a == b else '✗'}" for a, b in zip(said, kinds, strict=True)]
        return show_pictures([self.data.test[i][0] for i in firsts], titles, columns=8, size=1.45)
