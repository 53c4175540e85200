"""The course's small CLIP, opened at one block: what comes before it, and what comes after it."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import encode_prompts, load_clip
from serial_lora_course.plots.pictures import show_pictures


class OpenedCLIP:
    """CLIP, frozen, before drawings to train on and, second, to test on. What the block gets is computed once."""

    def __init__(self, block: int, dataset: str = "symbols", every: int = 4):
        backbone, self.data = load_clip(), load_classification(dataset)
        self.clip, self.prepare = backbone.model.requires_grad_(False), backbone.test_transform
        self.texts = encode_prompts(self.clip, backbone.tokenizer(self.data.prompts()))
        earlier = self.clip.visual.transformer.resblocks[:block]
        self.block, *self.later, self.last = self.clip.visual.transformer.resblocks[block:]
        self.labels, self.tokens = [], []
        for samples in ([*self.data.train][::every], [*self.data.test]):
            pictures, labels = zip(*samples, strict=True)
            tokens = self.clip.visual._embeds(torch.stack([*map(self.prepare, pictures)]))
            for each in earlier:
                tokens = each(tokens)
            self.tokens.append(tokens)
            self.labels.append(torch.tensor(labels))

    def finish(self, x: Tensor) -> Tensor:
        """From behind the block's attention to how near each drawing is to each kind's sentence, (N, kinds)."""
        visual = self.clip.visual
        x = x + self.block.mlp(self.block.ln_2(x))
        for later in self.later:
            x = later(x)
        every = self.last.ln_1(x)  # of the last block CLIP reads the first token alone
        x = x[:, :1] + self.last.attention(q_x=every[:, :1], k_x=every, v_x=every)
        x = x + self.last.mlp(self.last.ln_2(x))
        image = F.normalize(visual._pool(x)[0] @ visual.proj, dim=-1)
        return self.clip.logit_scale.exp() * image @ self.texts.T

    def show(self, answers: Tensor) -> Figure:
        """The first test drawing of each kind, with its name and, below, which of the `answers` it got."""
        kinds = [name.split(" ", 1)[-1] for name in self.data.class_names]
        firsts = [self.labels[1].tolist().index(c) for c in range(len(kinds))]
        said = [kinds[c] for c in answers[firsts]]
        titles = [f"{b}\n{a} {'✓' if a == b else '✗'}" for a, b in zip(said, kinds, strict=True)]
        return show_pictures([self.data.test[i][0] for i in firsts], titles, columns=8, size=1.45)
