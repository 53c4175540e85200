"""Pairs beside weights and in front of them, measured on the tiny CLIP.

Weights and changes of q, k and v are dictionaries from the part's letter to a matrix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from serial_lora.attention import find_attention_sites
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import adapter_parameters, inject
from serial_lora.merging import merge
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs.clip import CLIPObjective
from serial_lora_course.measures.lowrank import misses_by_method
from serial_lora_course.models.clip import CLIPBackbone

Parts = Mapping[str, Tensor]
BLOCK = 2  # of the image tower's six
REACHED = 1e-6  # a miss that is rounding


def qkv_weights(model: nn.Module, block: int = BLOCK, gradient: bool = False) -> dict[str, Tensor]:
    """The weights of q, k and v in a block of the image tower, or their gradients: (d, d) each."""
    (site,) = find_attention_sites(model, towers=["image"], blocks=[block])
    read = {}
    for part in "qkv":
        projection = site.projections[part]
        whole = projection.weight(model)
        whole = whole.grad if gradient else whole.detach()
        read[part] = whole[projection.row_slice].clone()
    return read


def grey_picture(name: str) -> Tensor:
    """A drawing of OpenMoji as numbers from 0, black, to 1, white: (64, 64)."""
    openmoji = load_emoji("openmoji")
    drawing = openmoji.picture(openmoji.names.index(name)).convert("L")
    return pil_to_tensor(drawing)[0] / 255


def random_pair(rank: int, width: int) -> tuple[Tensor, Tensor]:
    """A (r, d) and B (d, r) of random numbers, float64."""
    return torch.randn(rank, width).double(), torch.randn(width, rank).double()


@dataclass(frozen=True)
class Task:
    """A CLIP and a data set that it was not trained for."""

    backbone: CLIPBackbone
    data: ClassificationData

    def copy(self) -> nn.Module:
        """The model once more, with weights of its own."""
        return copy.deepcopy(self.backbone.model)

    def backward(self, model: nn.Module, every: int = 2) -> Tensor:
        """The loss on every so-many-th training picture; leaves its gradients in the model."""
        train = self.data.train
        chosen = [train[index] for index in range(0, len(train), every)]
        pictures = torch.stack([self.backbone.test_transform(picture) for picture, _ in chosen])
        labels = torch.tensor([label for _, label in chosen])
        prompts = self.backbone.tokenizer(self.data.prompts())
        loss = CLIPObjective(model, prompts)((pictures, labels))
        loss.backward()
        return loss.detach()

    def gradients(self, block: int = BLOCK) -> dict[str, Tensor]:
        """What the loss asks of q, k and v in a block, (d, d) each."""
        model = self.copy()
        self.backward(model)
        return qkv_weights(model, block, gradient=True)

    def floors(self) -> pd.DataFrame:
        """What Serial LoRA misses of the gradients at full rank, by block of the image tower.

        As they are, with the wish of one part turned round, and with the rows of each mixed.
        """
        torch.manual_seed(0)
        model, rows = self.copy(), []
        self.backward(model)
        for block in range(len(find_attention_sites(model, towers=["image"]))):
            weights, wishes = qkv_weights(model, block), qkv_weights(model, block, gradient=True)
            row = {"block": f"{block}", "as it is": _floor(weights, wishes)}
            for turned in "qkv":
                signed = {part: -g if part == turned else g for part, g in wishes.items()}
                row[f"{turned} turned"] = _floor(weights, signed)
            mixed = {p: torch.linalg.qr(torch.randn_like(g)).Q @ g for p, g in wishes.items()}
            rows.append(row | {"rows mixed": _floor(weights, mixed)})
        return pd.DataFrame(rows).set_index("block")

    def rescaled(self, multiple: float) -> nn.Module:
        """The same function, with larger or smaller W_q, W_k and W_v in the image tower."""
        model = self.copy().requires_grad_(False)
        for block in model.visual.transformer.resblocks:
            block.attn.in_proj_weight.mul_(multiple)
            block.ln_1.weight.div_(multiple)
            block.ln_1.bias.div_(multiple)
        return model

    def first_step(
        self, model: nn.Module, config: type[AdapterConfig], optimizer: Callable, lr: float
    ) -> tuple[float, float]:
        """Loss before the step, and the relative change of W_q, W_k, W_v in one block after it."""
        torch.manual_seed(0)
        before = torch.cat(list(qkv_weights(model).values()))  # (3d, d)
        adapted = inject(copy.deepcopy(model), config(rank=8, towers=["image"]))
        loss = self.backward(adapted, every=8)
        optimizer(list(adapter_parameters(adapted)), lr=lr).step()
        after = torch.cat(list(qkv_weights(merge(adapted)).values()))  # (3d, d)
        return loss.item(), ((after - before).norm() / before.norm()).item()

    def first_steps(
        self, rates: Mapping[str, float], multiples: tuple[float, ...] = (0.5, 1.0, 2.0)
    ) -> pd.DataFrame:
        """That change for both methods, some optimizers at their rates, and some sizes of W."""
        rows = {}
        for name, lr in rates.items():
            for title, config in (("LoRA", LoRAConfig), ("Serial LoRA", SerialLoRAConfig)):
                optimizer = getattr(torch.optim, name)
                found = [
                    self.first_step(self.rescaled(m), config, optimizer, lr) for m in multiples
                ]
                row = {
                    f"W times {m:g}": moved for m, (_, moved) in zip(multiples, found, strict=True)
                }
                losses = [loss for loss, _ in found]
                row |= {"least loss before": min(losses), "largest loss before": max(losses)}
                rows[f"{name}, {lr:g}", title] = row
        return pd.DataFrame(rows).T.rename_axis(["optimizer", "method"])


def _floor(weights: Parts, changes: Parts) -> float:
    return misses_by_method(weights, changes)["serial_lora"][-1].item()


def first_ranks(misses: Mapping[str, Mapping[str, Tensor]]) -> pd.DataFrame:
    """At which rank each method reaches each wish, and what Serial LoRA misses at full rank.

    Args:
        misses: wish -> what :func:`serial_lora_course.measures.lowrank.misses_by_method` says of it.
    """
    titles = ("LoRA reaches it at rank", "one row space", "Serial LoRA")
    rows = []
    for wish, curves in misses.items():
        row = {"wish": wish}
        for title, curve in zip(titles, curves.values(), strict=True):
            reached = torch.nonzero(curve < REACHED)
            row[title] = int(reached[0]) if len(reached) else "never"
        full = curves["serial_lora"][-1].item()
        rows.append(row | {"Serial LoRA at full rank misses": f"{full:.0%}"})
    return pd.DataFrame(rows)


def flat_world() -> tuple[Parts, dict[str, tuple[Tensor, Tensor]], Tensor]:
    """A world with two numbers a token: weights (2, 2), a pair of rank 1 for each, ten tokens."""
    weights = {
        "q": torch.tensor([[1.0, -0.3], [0.6, 0.8]]),
        "k": torch.tensor([[-0.5, -0.6], [0.6, -0.8]]),
        "v": torch.tensor([[0.5, 1.2], [-0.8, -0.2]]),
    }
    pairs = {  # (A_p, B_p), of shapes (1, 2) and (2, 1)
        "q": (torch.tensor([[1.0, 0.3]]), torch.tensor([[0.5], [0.3]])),
        "k": (torch.tensor([[-0.2, 1.0]]), torch.tensor([[0.6], [-0.2]])),
        "v": (torch.tensor([[0.7, -0.7]]), torch.tensor([[0.0], [0.6]])),
    }
    angles = torch.arange(10) * 2 * torch.pi / 10
    return weights, pairs, torch.stack([angles.cos(), angles.sin()], dim=1)  # tokens (N, 2)
