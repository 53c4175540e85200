"""Pretraining of the tiny CLIP: many designers' drawings, with what they show in words.

An open_clip model at small size learns to put a drawing and its name in the same place, whoever
drew it, and to know what kind of thing it is. No drawing of OpenMoji's is among them, nor of Symbola
or Unifont, nor a photograph: those are what the course adapts it to.
"""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from data_scripts.pretraining.augment import augment
from data_scripts.pretraining.icons import (
    ICON_STYLES,
    ICONIFY,
    Icons,
    load_icons,
    load_named_icons,
)
from data_scripts.pretraining.kinds import kinds_of
from data_scripts.pretraining.loop import PretrainingRun
from serial_lora_course.data.emoji import (
    ATTRIBUTION,
    Concept,
    EmojiSet,
    emoji_concepts,
    load_emoji,
)
from serial_lora_course.data.emoji_sets import EMOJI_SETS, load_emoji_set, unseen_drawings
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.clip import encode_prompts

NAME = "tiny-clip"
SEEN_STYLES = ("twemoji", "noto-mono")
MEASURED_STYLES = ("twemoji", "openmoji")
VISION = {"image_size": 48, "patch_size": 8, "width": 192, "layers": 6, "head_width": 48}
TEXT = {"context_length": 16, "vocab_size": None, "width": 192, "heads": 4, "layers": 4}
ARCHITECTURE = {"embed_dim": 192, "vision_cfg": VISION, "text_cfg": TEXT}
CAPTIONS = ("{}", "a drawing of {}", "a picture of {}", "an icon of {}", "{}.", "a photo of {}.")
PROMPTS = ("a photo of {}.", "a drawing of {}.", "a sketch of {}.", "an emoji of {}.")
ARTICLES = ("", "a ", "an ", "the ")


@dataclass(frozen=True)
class Recipe:
    """What a pretraining run depends on."""

    steps: int = 16000
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 300  # steps
    decay: float = 0.25  # share of the steps in which the rate falls
    emoji: float = 0.5  # share of a batch that are emoji; icons are most of the drawings
    kind_captions: tuple[float, float] = (0.15, 0.4)  # that say only the kind: at first, at last
    tagged_captions: float = 0.2  # that say name and kind
    picture_loss: float = 0.5  # weight of "two drawings of one thing belong together"
    seed: int = 0


class Drawings:
    """Every drawing in memory, with its name, its kinds, and the drawings of the same name."""

    def __init__(self, emoji_sets: list[EmojiSet], icons: Icons | None) -> None:
        pictures = [emoji.pictures for emoji in emoji_sets] + ([icons.pictures] if icons else [])
        concepts = [concept for emoji in emoji_sets for concept in emoji.concepts]
        self.names = [c.name.lower() for c in concepts] + list(icons.names if icons else ())
        self.emoji = len(concepts)  # the first so many are emoji
        self.pictures = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2)
        subgroups = {c.name.lower(): (category_of(c),) for c in concepts}
        self.kinds = {
            name: subgroups.get(name, ()) + kinds for name, kinds in kinds_of(self.names).items()
        }
        # An arrow or a letter may not be mirrored, and an icon may be either.
        self.mirror = torch.zeros(len(self.names), dtype=torch.bool)
        self.mirror[: self.emoji] = torch.tensor(
            [c.group not in ("Symbols", "Flags") for c in concepts]
        )
        self.of_name: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            self.of_name.setdefault(name, []).append(index)

    def batch(self, recipe: Recipe, chance: random.Random) -> list[int]:
        """Indices of drawings: every name comes in two of its drawings, where there are two."""
        emoji = round(recipe.batch // 2 * recipe.emoji)
        names: dict[str, None] = {}
        for low, high, count in (
            (0, self.emoji, emoji),
            (self.emoji, len(self.names), recipe.batch // 2),
        ):
            while len(names) < count:
                names[self.names[chance.randrange(low, high)]] = None
        chosen = []
        for name in names:
            indices = self.of_name[name]
            chosen += chance.sample(indices, 2) if len(indices) > 1 else 2 * indices
        return chosen


def category_of(concept: Concept) -> str:
    """Unicode's subgroup in words, such as "animal bird"."""
    return concept.subgroup.replace("-", " ").replace("&", "and")


def contrastive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of each row with its positives sharing the target evenly."""
    target = positive.float()
    target = target / target.sum(1, keepdim=True)
    return -(target * F.log_softmax(logits, 1)).sum(1).mean()


class Pretraining(PretrainingRun):
    """One run of the tiny CLIP."""

    name = NAME

    def __init__(self, folder: Path, recipe: Recipe, asked: str = "clip") -> None:
        super().__init__(folder, recipe, asked)
        size = ARCHITECTURE["vision_cfg"]["image_size"]
        sets = [load_emoji(style, size) for style in SEEN_STYLES]
        sets += [load_icons(style, size) for style in ICON_STYLES]
        named = load_named_icons(size)
        self.drawings = Drawings(sets, named)
        self.counts = {emoji.style: len(emoji.concepts) for emoji in sets}
        self.counts["icon sets"] = len(named.names)
        kinds = {kind for kinds in self.drawings.kinds.values() for kind in kinds}
        self.tokenizer, config = write_model_files(folder, kinds.union(self.drawings.names))
        model = open_clip.CLIP(
            config["embed_dim"], config["vision_cfg"], config["text_cfg"], output_dict=True
        )
        fast_attention(model)
        self.set_up(model)

    def one_step(self) -> float:
        recipe = self.recipe
        chance = random.Random(f"{recipe.seed}:{self.step}")
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        indices = self.drawings.batch(recipe, chance)
        rgba = self.drawings.pictures[indices].float() / 255
        rgba[:, :3] *= rgba[:, 3:]
        pictures = normalize(augment(rgba, self.drawings.mirror[indices], generator))
        self.model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self._loss(indices, pictures, chance)
        number = self.descend(loss)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return number

    def _loss(self, indices: list[int], pictures: Tensor, chance: random.Random) -> Tensor:
        names = [self.drawings.names[i] for i in indices]
        captions, said = self._captions(names, chance)
        true = [{name, *self.drawings.kinds[name]} for name in names]
        positive = torch.tensor([[subject in mine for subject in said] for mine in true])
        same = torch.tensor([[a == b for b in names] for a in names])

        image = self.model.encode_image(pictures, normalize=True).float()
        text = encode_prompts(self.model, self.tokenizer(captions))
        logits = self.model.logit_scale.exp() * image @ text.T
        loss = (contrastive_loss(logits, positive) + contrastive_loss(logits.T, positive.T)) / 2
        itself = torch.eye(len(indices), dtype=torch.bool)
        between = (10.0 * image @ image.T).masked_fill(itself, -100.0)
        return loss + self.recipe.picture_loss * contrastive_loss(between, same & ~itself)

    def _captions(self, names: list[str], chance: random.Random) -> tuple[list[str], list[str]]:
        """A caption for each drawing, and what it says: its name or one of its kinds."""
        kind_share = self.recipe.kind_captions[self.ending > 0]
        tagged_share = self.recipe.tagged_captions
        captions, said = [], []
        for name in names:
            kinds, luck = self.drawings.kinds[name], chance.random()
            subject = chance.choice(kinds) if kinds and luck < kind_share else name
            words = chance.choice(ARTICLES) + subject if subject != name else name
            caption = chance.choice(CAPTIONS).format(words)
            if kinds and kind_share <= luck < kind_share + tagged_share:
                caption = f"{name}, {chance.choice(kinds)}"
            captions.append(caption)
            said.append(subject)
        return captions, said

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """How often a drawing finds its name, and zero-shot accuracy on the adaptation sets.

        The drawings are those of the concepts that OpenMoji hides (`unseen_drawings`); all their names
        are the gallery. Twemoji's drawings of them were seen, OpenMoji's were not.
        """
        self.model.eval()
        twemoji, openmoji = (load_emoji(style, VISION["image_size"]) for style in MEASURED_STYLES)
        hidden = {openmoji.concepts[i].codepoints for i in unseen_drawings(openmoji)}
        result: dict[str, float] = {"hidden concepts": len(hidden)}
        for emoji in (twemoji, openmoji):
            kept = [i for i, concept in enumerate(emoji.concepts) if concept.codepoints in hidden]
            names = [emoji.concepts[i].name.lower() for i in kept]
            similarity = self._similarity(emoji, kept, names)
            same = torch.tensor([[a == b for b in names] for a in names])
            ranks = ((similarity > similarity.diagonal()[:, None]) & ~same).sum(1)
            for k in (1, 10):
                result[f"{emoji.style} R@{k}"] = round((ranks < k).float().mean().item(), 4)
        for name in EMOJI_SETS:
            data = load_emoji_set(name, size=VISION["image_size"])
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

    def card(self) -> dict:
        """With what it was trained on, and by whom that is."""
        licences = {style: ATTRIBUTION[style] for style in SEEN_STYLES}
        licences |= {style: f"{ICONIFY}, {licence}" for style, (_, licence) in ICON_STYLES.items()}
        licences["icon sets"] = f"{ICONIFY}; data_scripts/pretraining/icon_sets.tsv has each one's"
        seen = {"data": self.counts, "licences": licences}
        return super().card() | seen | {"training_pictures": len(self.drawings.names)}


def normalize(pictures: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (pictures - mean) / std


def write_model_files(folder: Path, words: Iterable[str]):
    """The merges and the model config that open_clip's factory needs; tokenizer and config."""
    corpus = [text for c in emoji_concepts() for text in (c.name, category_of(c))]
    corpus += [class_name for classes in EMOJI_SETS.values() for class_name in classes]
    corpus += sorted(words)
    merges = folder / f"{NAME}.merges.txt.gz"
    pairs = used_merges([*corpus, *CAPTIONS, *PROMPTS])
    lines = ["#merges of CLIP that the captions use", *(" ".join(pair) for pair in pairs)]
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
    """The same weights as plain products in bfloat16.

    With so few tokens they are three times as fast on a processor as scaled_dot_product_attention.
    """

    def forward(self, query, key, value, need_weights=False, attn_mask=None, **_):
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).contiguous()
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        if attn_mask is not None:
            scores = scores + attn_mask
        out = scores.softmax(-1).to(v.dtype) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2)), None


def fast_attention(model: nn.Module) -> None:
    """Let every attention of an open_clip model take the faster way."""
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            module.__class__ = _FastAttention
