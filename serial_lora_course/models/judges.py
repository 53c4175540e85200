"""Who judges generated pictures: the networks behind FID, KID, CLIP-Score and the style's share.

    judge = load_judge("tiny")
    frechet_distance(judge.picture_features(drawn), judge.picture_features(real))
    judge.clip_scores(drawn, captions).mean()
    judge.style_share(drawn, "night")

A judge has no part in the tuning that it judges.

=======================  ==================================  =====================================
                         tiny                                paper
=======================  ==================================  =====================================
features for FID, KID    tiny CLIP, block 4, its mean        Inception (December 2015), 2048
CLIP-Score               tiny CLIP                           OpenAI's ViT-B/32
style                    :mod:`serial_lora_course.models.style_classifier` the same ViT-B/32, zero-shot
=======================  ==================================  =====================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, pil_to_tensor

from serial_lora.errors import require_choice
from serial_lora_course.data.style_files import RELEASE_OF
from serial_lora_course.measures.pictures import clip_score
from serial_lora_course.models.clip import (
    AT_ONCE,
    CLIPBackbone,
    encode_prompts,
    load_clip,
    look,
)
from serial_lora_course.models.inception import load_inception
from serial_lora_course.models.pictures import Pictures, as_pictures
from serial_lora_course.models.style_classifier import style_classifier
from serial_lora_course.models.weights import require_scale

KEPT = 8  # sets of pictures or of captions whose features the tiny judge keeps
FEATURE_BLOCK = 3  # of the tiny CLIP's six, counted from 0
PAPER_CLIP = "ViT-B-32-quickgelu"
STYLE_PROMPT = "a picture in the style of {}."
NO_STYLE = "a photo."


class Judge:
    """What both judges can do; all features and scores are float32 on the CPU.

    Attributes:
        clip: the CLIP behind CLIP-Score.
        styles: the styles that it tells apart, in the order of ``style_probabilities(pictures)``.
    """

    clip: CLIPBackbone
    styles: tuple[str, ...]

    def networks(self) -> list[nn.Module]:
        """All networks that it judges by."""
        return [self.clip.model]

    def clip_features(self, pictures: Pictures) -> Tensor:
        """CLIP's normalised features (N, d) of pictures."""
        return look(self.clip, as_pictures(pictures))[1]

    @torch.no_grad()
    def text_features(self, captions: Sequence[str]) -> Tensor:
        """CLIP's normalised features (N, d) of captions, taken as they are."""
        model = self.clip.model
        tokens = self.clip.tokenizer(list(captions)).to(_device(model))
        return torch.cat([encode_prompts(model, part).cpu() for part in tokens.split(AT_ONCE)])

    def clip_scores(self, pictures: Pictures, captions: Sequence[str]) -> Tensor:
        """CLIP-Score (N,) of each picture and its own caption."""
        return clip_score(self.clip_features(pictures), self.text_features(captions))

    def style_share(self, pictures: Pictures, style: str) -> float:
        """Of N pictures, the share taken for ``style``."""
        require_choice("style", style, self.styles)
        likeliest = self.style_probabilities(pictures).argmax(1).tolist()
        return likeliest.count(self.styles.index(style)) / len(likeliest)


class TinyJudge(Judge):
    """Judges drawings by the tiny CLIP and, as to style, by a classifier of its own.

    FID's features are not CLIP's answer, which was trained to be the same whoever draws. Two thirds
    of the way up the tower, what a drawing shows and how it is drawn are both still there. Their
    mean over the patches stands for the whole picture, as Inception's pooled features do.
    """

    def __init__(self) -> None:
        self.clip = load_clip("tiny")
        self.classifier = style_classifier(self.clip)
        self.styles = self.classifier.names
        self._kept: dict[Hashable, Any] = {}

    def picture_features(self, pictures: Pictures) -> Tensor:
        """Features (N, 192) for FID and KID; see :class:`TinyJudge`."""
        return self._look(pictures)[0]

    def clip_features(self, pictures: Pictures) -> Tensor:
        return self._look(pictures)[1]

    def text_features(self, captions: Sequence[str]) -> Tensor:
        return self._keep(tuple(captions), super().text_features, captions)

    def _look(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Both kinds of features out of one pass, kept for the pictures that were seen last."""
        sheet, digest = as_pictures(pictures), hashlib.sha256()
        for picture in sheet:
            digest.update(repr(picture.size).encode() + picture.tobytes())
        return self._keep(digest.hexdigest(), self._block_and_answer, sheet)

    def _keep(self, key: Hashable, look: Callable[[Any], Any], seen: Any) -> Any:
        """What was seen under a key; looked for only if it is not kept."""
        if key not in self._kept:
            self._kept = dict([*self._kept.items(), (key, look(seen))][-KEPT:])
        return self._kept[key]

    def _block_and_answer(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """A block's mean token and CLIP's normalised features of each picture."""
        (tokens,), answer = look(self.clip, pictures, [FEATURE_BLOCK])
        return tokens.mean(1), answer

    def style_probabilities(self, pictures: Pictures) -> Tensor:
        """How likely each of ``styles`` is, (N, styles)."""
        return self.classifier.probabilities(as_pictures(pictures)).float()


class PaperJudge(Judge):
    """Judges pictures by Inception and by OpenAI's CLIP ViT-B/32, on a GPU where there is one.

    All networks see the central square, which is what training sees too. What CLIP calls a style
    is its likeliest prompt; nobody has measured here how often it is right.
    """

    styles = (*RELEASE_OF, "photo")

    def __init__(self) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.inception = load_inception().to(device)
        self.clip = load_clip("paper", PAPER_CLIP)
        self.clip.model.to(device)

    def networks(self) -> list[nn.Module]:
        return [self.clip.model, self.inception]

    @torch.no_grad()
    def picture_features(self, pictures: Pictures) -> Tensor:
        """Inception's features (N, 2048) for FID and KID."""
        device = _device(self.inception)
        features = [  # one by one, as pictures may differ in size
            self.inception(pil_to_tensor(center_crop(p, min(p.size)))[None].to(device)).cpu()
            for p in as_pictures(pictures)
        ]
        return torch.cat(features).float()

    def style_probabilities(self, pictures: Pictures) -> Tensor:
        """How likely each of ``styles`` is, (N, styles), to CLIP, zero-shot."""
        words = [name.replace("_", " ") for name in self.styles[:-1]]
        prompts = [*map(STYLE_PROMPT.format, words), NO_STYLE]
        similarity = self.clip_features(pictures) @ self.text_features(prompts).T
        return (self.clip.model.logit_scale.detach().cpu().exp() * similarity).softmax(1)


def load_judge(scale: str = "tiny") -> Judge:
    """The judge of a scale; errors as for :class:`PaperJudge`."""
    require_scale(scale)
    return TinyJudge() if scale == "tiny" else PaperJudge()


def _device(module: torch.nn.Module) -> torch.device:
    return next(module.parameters()).device
