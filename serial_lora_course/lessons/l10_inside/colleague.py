"""Adapters, trained and merged by the learner's own loop, and files whose making is for the learner to find."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, eject, inject
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.models.clip import encode_prompts, load_clip

METHODS = {"LoRA": LoRAConfig, "Serial LoRA": SerialLoRAConfig, "no adapter": None}


class Run(NamedTuple):
    """A plain CLIP again, and where the A of each pair began and ended: (r, d) each, in float64."""

    merged: nn.Module
    starts: list[Tensor]
    ends: list[Tensor]


class Trainer:
    """Adapts the small CLIP to four of each kind of drawing, by the loop and the loss of lesson 04."""

    def __init__(self, train: Callable, loss_of: Callable, rate: float = 8e-3) -> None:
        self.train, self.loss_of, self.rate = train, loss_of, rate
        self.clip, self.drawings = load_clip("tiny"), load_classification("symbols")
        self.prompts = self.clip.tokenizer(self.drawings.prompts(self.drawings.template))

    def adapt(
        self,
        config: LoRAConfig | SerialLoRAConfig | None,
        seed: int,
        steps: int = 16,
        data: int | None = None,
        one_A: bool = False,
    ) -> Run:
        """Train and merge an adapter, or W_q, W_k and W_v themselves where config is None.

        A seed draws A, and chooses the drawings, unless ``data`` does that. With ``one_A``, LoRA's k and v
        have the A of q.
        """
        torch.manual_seed(seed)
        model, pairs = copy.deepcopy(self.clip.model), {}
        if config:
            pairs = adapters(inject(model, config))
        else:
            for name, p in model.named_parameters():
                p.requires_grad = name.startswith("visual") and "in_proj_weight" in name
        for name, pair in pairs.items():
            if one_A and name.endswith(("lora_k", "lora_v")):
                pair.lora_A = pairs[name[:-1] + "q"].lora_A
        starts = [pair.lora_A.detach().double() for pair in pairs.values()]
        chosen = few_shot_split(self.drawings, 4, seed if data is None else data).indices
        shots = [self.drawings.train[i] for i in chosen]
        shots = [(self.clip.test_transform(each), torch.tensor(label)) for each, label in shots]
        learns = [p for p in model.parameters() if p.requires_grad]
        rate = self.rate if config else self.rate / 8  # all weights, so smaller steps
        groups = [{"params": learns, "lr": rate, "weight_decay": 0.01}]
        self.train(model, groups, shots, self.prompts, self.loss_of, steps, len(shots))
        ends = [pair.lora_A.detach().double() for pair in pairs.values()]
        return Run(eject(model, keep_merged=True) if config else model, starts, ends)

    @torch.no_grad()
    def right(self, model: nn.Module) -> str:
        """How many test drawings a model names right, of how many."""
        pictures, labels = zip(*self.drawings.test, strict=True)
        seen = model.encode_image(torch.stack([*map(self.clip.test_transform, pictures)]))
        answers = (seen @ encode_prompts(model, self.prompts).T).argmax(-1)  # (N,)
        return f"{(answers == torch.tensor(labels)).sum()} of {len(labels)} right"


def merged_by_a_colleague(adapt: Callable[..., Run], number: int) -> tuple[nn.Module, str]:
    """A merged CLIP in float16, and how it was made: chance chose method, rank, seed and 2 to 16 steps.

    Args:
        adapt: a trainer's.
        number: of the file; another one was made in another way.
    """
    chance = random.Random(number)
    method, rank, seed = chance.choice([*METHODS]), chance.randint(4, 24), chance.randrange(10)
    config = METHODS[method]
    run = adapt(config(rank, towers=["image"]) if config else None, seed, chance.randint(2, 16))
    return run.merged.half(), f"{method}, rank {rank}, seed {seed}" if config else method
