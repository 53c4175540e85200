"""Pretraining of the tiny CLIP: thirteen designers' drawings of the same things, with captions.

An open_clip model at small size learns to put a drawing and its name in the same place, whoever
drew it. OpenMoji's drawings of hidden concepts (`serial_lora_course.data.emoji_sets`) are left out: they
are what the adaptation sets test.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from data_scripts.pretraining.augment import augment
from data_scripts.pretraining.icons import ICON_STYLES, load_icons
from data_scripts.pretraining.loop import PretrainingRun
from serial_lora_course.data.emoji import STYLES, Concept, EmojiSet, emoji_concepts, load_emoji
from serial_lora_course.data.emoji_sets import (
    EMOJI_SETS,
    hidden_codepoints,
    load_emoji_set,
    unseen_drawings,
)
from serial_lora_course.measures.metrics import accuracy

NAME = "tiny-clip"
VISION = {"image_size": 48, "patch_size": 8, "width": 192, "layers": 6, "head_width": 48}
TEXT = {"context_length": 16, "vocab_size": None, "width": 192, "heads": 4, "layers": 4}
ARCHITECTURE = {"embed_dim": 192, "vision_cfg": VISION, "text_cfg": TEXT}
CAPTIONS = ("{}", "a drawing of {}", "a picture of {}", "an icon of {}", "{}.", "a photo of {}.")
PROMPTS = ("a photo of {}.", "a drawing of {}.", "a sketch of {}.", "an emoji of {}.")


@dataclass(frozen=True)
class Recipe:
    """What a pretraining run depends on."""

    minutes: float = 42.0
    category_minutes: float = 11.0  # then this long with captions that mostly say the kind of thing
    batch: int = 256
    learning_rate: float = 1e-3
    category_learning_rate: float = 4e-4
    weight_decay: float = 0.1
    warmup: float = 0.02  # fraction of the time
    category_captions: tuple[float, float] = (0.1, 0.5)  # say nothing but Unicode's subgroup
    tagged_captions: tuple[float, float] = (0.2, 0.2)  # say the name and the subgroup
    picture_loss: float = 0.5  # weight of "two drawings of one thing belong together"
    openmoji_weight: float = 2.0  # OpenMoji's visible drawings are drawn this often
    seed: int = 0


class Drawings:
    """Every visible drawing in memory, with what it shows."""

    def __init__(self, sets: list[EmojiSet], hidden: frozenset[str]) -> None:
        pictures, self.concepts, self.is_openmoji = [], [], []
        for emoji in sets:
            openmoji = emoji.style.startswith("openmoji")
            for index, concept in enumerate(emoji.concepts):
                if openmoji and concept.codepoints in hidden:
                    continue
                pictures.append(emoji.pictures[index])
                self.concepts.append(concept)
                self.is_openmoji.append(openmoji)
        self.pictures = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        self.is_openmoji = torch.tensor(self.is_openmoji)
        self.mirror = torch.tensor([c.group not in ("Symbols", "Flags") for c in self.concepts])
        self.of_name: dict[str, list[int]] = {}
        for index, concept in enumerate(self.concepts):
            self.of_name.setdefault(concept.name, []).append(index)

    def batch(self, recipe: Recipe, chance: random.Random) -> list[int]:
        """Indices of pictures: every concept that is drawn at random comes in two styles."""
        names = chance.sample(list(self.of_name), recipe.batch // 2)
        chosen = []
        for name in names:
            indices = self.of_name[name]
            weights = [recipe.openmoji_weight if self.is_openmoji[i] else 1.0 for i in indices]
            chosen += chance.choices(indices, weights, k=2)
        return chosen


def category_of(concept: Concept) -> str:
    """Unicode's subgroup in words, such as "animal bird".

    Three of them ("clothing", "mail", "money") are also class names of the adaptation sets. No
    OpenMoji drawing is ever captioned with any.
    """
    return concept.subgroup.replace("-", " ").replace("&", "and")


def contrastive_loss(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """Cross-entropy of each row with its positives sharing the target evenly."""
    logits = logits.masked_fill(ignore, float("-inf"))
    target = (positive & ~ignore).float()
    has_target = target.sum(1) > 0
    target = target[has_target] / target[has_target].sum(1, keepdim=True)
    log_likelihood = F.log_softmax(logits[has_target], 1).masked_fill(ignore[has_target], 0.0)
    return -(target * log_likelihood).sum(1).mean()


class Pretraining(PretrainingRun):
    """One run of the tiny CLIP."""

    name = NAME

    def __init__(self, folder: Path, recipe: Recipe, asked: str = "clip") -> None:
        super().__init__(folder, recipe, recipe.minutes + recipe.category_minutes, asked)
        self.hidden = hidden_codepoints()
        size = ARCHITECTURE["vision_cfg"]["image_size"]
        self.sets = [load_emoji(style, size) for style in STYLES]
        self.sets += [load_icons(style, size) for style in ICON_STYLES]
        self.drawings = Drawings(self.sets, self.hidden)
        self.tokenizer, config = write_model_files(folder)
        model = open_clip.CLIP(
            config["embed_dim"], config["vision_cfg"], config["text_cfg"], output_dict=True
        )
        fast_attention(model)
        self.set_up(model)

    def _phase(self) -> tuple[int, float]:
        """Names first (0), kinds of things then (1), and how much of that phase is done."""
        first = self.recipe.minutes * 60
        if self.seconds < first:
            return 0, self.seconds / first
        return 1, (self.seconds - first) / (self.recipe.category_minutes * 60)

    def one_step(self) -> float:
        recipe, (phase, done) = self.recipe, self._phase()
        peak = (recipe.learning_rate, recipe.category_learning_rate)[phase]
        self.set_learning_rate(peak, done)
        chance = random.Random(f"{recipe.seed}:{self.step}")
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        indices = self.drawings.batch(recipe, chance)
        rgba = self.drawings.pictures[indices].float() / 255
        rgba[:, :3] *= rgba[:, 3:]
        pictures = normalize(augment(rgba, self.drawings.mirror[indices], generator))
        self.model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self._loss(indices, pictures, chance, phase)
        number = self.descend(loss)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return number

    def _loss(self, indices: list[int], pictures: Tensor, chance, phase: int) -> Tensor:
        concepts = [self.drawings.concepts[i] for i in indices]
        openmoji = self.drawings.is_openmoji[indices]
        captions, said = self._captions(concepts, openmoji.tolist(), chance, phase)
        names = [concept.name for concept in concepts]
        own = [{concept.name, category_of(concept)} for concept in concepts]
        positive = torch.tensor([[subject in mine for subject in said] for mine in own])
        same = torch.tensor([[a == b for b in names] for a in names])
        # No OpenMoji drawing is told its class, neither as "yes" nor as "no".
        by_category = torch.tensor([a != b for a, b in zip(said, names, strict=True)])
        ignore = openmoji[:, None] & by_category[None, :]

        out = self.model(pictures, self.tokenizer(captions))
        image, text = out["image_features"].float(), out["text_features"].float()
        logits = out["logit_scale"] * image @ text.T
        loss = (
            contrastive_loss(logits, positive, ignore)
            + contrastive_loss(logits.T, positive.T, ignore.T)
        ) / 2
        itself = torch.eye(len(indices), dtype=torch.bool)
        between_pictures = contrastive_loss(10.0 * image @ image.T, same, itself)
        return loss + self.recipe.picture_loss * between_pictures

    def _captions(self, concepts, openmoji: list[bool], chance: random.Random, phase: int):
        """A caption for each picture, and what it says: the concept's name or its subgroup."""
        category_share = self.recipe.category_captions[phase]
        tagged_share = self.recipe.tagged_captions[phase]
        captions, said = [], []
        for concept, is_openmoji in zip(concepts, openmoji, strict=True):
            luck = 1.0 if is_openmoji else chance.random()
            only_category = luck < category_share
            subject = category_of(concept) if only_category else concept.name
            caption = chance.choice(CAPTIONS).format(subject)
            if not only_category and luck < category_share + tagged_share:
                caption = f"{concept.name}, {category_of(concept)}"
            captions.append(caption)
            said.append(subject)
        return captions, said

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """How often a hidden drawing finds its name, and zero-shot accuracy on the adaptation sets.

        Hidden are the concepts whose OpenMoji drawing no training picture equals; all their names are
        the gallery.
        """
        self.model.eval()
        openmoji = self.sets[1]
        unseen = {openmoji.concepts[i].codepoints for i in unseen_drawings(openmoji)}
        result: dict[str, float] = {"hidden concepts": len(unseen)}
        for emoji in self.sets[:2]:  # Twemoji and OpenMoji
            kept = [i for i, concept in enumerate(emoji.concepts) if concept.codepoints in unseen]
            names = [emoji.concepts[i].name for i in kept]
            similarity = self._similarity(emoji, kept, names)
            same = torch.tensor([[a == b for b in names] for a in names])
            ranks = ((similarity > similarity.diagonal()[:, None]) & ~same).sum(1)
            for k in (1, 10):
                result[f"{emoji.style} R@{k}"] = round((ranks < k).float().mean().item(), 4)
        for name in EMOJI_SETS:
            data = load_emoji_set(name, size=openmoji.pictures.shape[1])
            similarity = self._similarity(openmoji, data.test.sources, data.prompts())
            labels = torch.tensor(data.test.labels)
            result[f"zero-shot {name}"] = round(accuracy(similarity, labels), 4)
        return result

    def _similarity(self, emoji: EmojiSet, kept: list[int], texts: list[str]) -> Tensor:
        """Cosines (pictures, texts) of some drawings on white paper and of some texts."""
        rgba = torch.from_numpy(emoji.pictures[kept]).permute(0, 3, 1, 2).float() / 255
        pictures = normalize(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])
        image = self.model.encode_image(pictures, normalize=True)
        return image @ self.model.encode_text(self.tokenizer(texts), normalize=True).T

    def write_model(self) -> None:
        self.write_weights()  # config and merges are there since the start


def normalize(pictures: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (pictures - mean) / std


def write_model_files(folder: Path):
    """The merges and the model config that open_clip's factory needs; tokenizer and config."""
    corpus = [text for c in emoji_concepts() for text in (c.name, category_of(c))]
    corpus += [class_name for classes in EMOJI_SETS.values() for class_name in classes]
    merges = folder / f"{NAME}.merges.txt.gz"
    pairs = used_merges([*corpus, *CAPTIONS, *PROMPTS])
    lines = ["#merges of CLIP that emoji captions use", *(" ".join(pair) for pair in pairs)]
    merges.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    length = ARCHITECTURE["text_cfg"]["context_length"]
    tokenizer = SimpleTokenizer(bpe_path=str(merges), context_length=length)
    text = ARCHITECTURE["text_cfg"] | {"vocab_size": tokenizer.vocab_size}
    config = ARCHITECTURE | {"text_cfg": text}
    (folder / f"{NAME}.json").write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer, config


def used_merges(corpus: list[str]) -> list[tuple[str, str]]:
    """The merges that tokenizing ``corpus`` applies, in CLIP's order.

    Byte-pair encoding always applies the best-ranked merge it can. Keeping, in CLIP's order, every
    merge that was ever applied therefore leaves the corpus' tokens exactly as CLIP's, with a table
    of some thousand rows in place of 49,408.
    """
    tokenizer = SimpleTokenizer()
    parents = {first + second: (first, second) for first, second in tokenizer.bpe_ranks}
    used: set[tuple[str, str]] = set()
    pending = [tokenizer.decoder[token] for text in corpus for token in tokenizer.encode(text)]
    while pending:
        pair = parents.get(pending.pop())
        if pair is not None and pair not in used:
            used.add(pair)
            pending += pair
    return sorted(used, key=tokenizer.bpe_ranks.__getitem__)


class _FastAttention(nn.MultiheadAttention):
    """The same weights over scaled_dot_product_attention, several times as fast in bfloat16."""

    def forward(self, query, key, value, need_weights=False, attn_mask=None, **_):
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(out.transpose(1, 2).flatten(2)), None


def fast_attention(model: nn.Module) -> None:
    """Let every attention of an open_clip model take the faster way."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = _FastAttention
