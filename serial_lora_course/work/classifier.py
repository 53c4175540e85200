"""Any vision model as a classifier of one's own pictures: its library's way in, a head, one file, answers.

classifier = open_classifier("my_classifier")           # what `serial-lora fit` wrote
predict(classifier, ["a.png", "b.png"])                 # (2, C) probabilities
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn
from torchvision.transforms import Compose
from transformers import AutoImageProcessor, AutoModel

from serial_lora import load_adapter, save_adapter
from serial_lora.errors import SerialLoRAError
from serial_lora.files import read_header
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.types import Pictures
from serial_lora_course.files import ADAPTER_FILE, expanded
from serial_lora_course.labs.training import OnPicture, batches_of
from serial_lora_course.models.clip import TINY_MODEL, cut_to_middle, load_clip

BATCH = 64  # pictures that are looked at together


class Vision:
    """A model in evaluation mode, and what its library does with pictures before and after it.

    Args:
        prepare: PIL picture -> (3, size, size), as for testing: (x - mean) / std of each channel.
        features: one vector a picture, as the library gives it: (B, 3, size, size) -> (B, d).
    """

    head = "classifier"  # of the model's own, whose place a new one can take
    source: tuple[str, int | None] = ("", None)  # what `load_vision` made it of

    def __init__(self, model: nn.Module, prepare: Callable, features: Callable) -> None:
        self.model, self.features = model.eval().float(), features
        self.prepare = Compose([cut_to_middle, prepare])
        black, white = (self.prepare(Image.new("RGB", (96, 64), c)) for c in ("black", "white"))
        self.size, kind = black.shape[-1], type(model).__name__
        if black.shape != (3, self.size, self.size):
            raise SerialLoRAError(f"{kind} makes no square pictures; take another model.")
        middle = (slice(None), self.size // 2, self.size // 2)
        std = 1 / (white - black)[middle]  # they are -mean / std and (1 - mean) / std
        self.mean, self.std = (-black[middle] * std).tolist(), std.tolist()
        noise = torch.rand(2, *black.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            vectors, again = (self.features(noise) for _ in range(2))
        good = isinstance(vectors, Tensor) and vectors.dim() == 2 and len(vectors) == len(noise)
        if not good or not torch.allclose(vectors, again, rtol=1e-2):  # some mask parts at random
            raise SerialLoRAError(
                f"{kind} does not give one and the same vector each time for a picture; take another model."
            )
        self.width = vectors.shape[1]

    def write_config(self, folder: Path, class_names: Sequence[str]) -> None:
        """What the library needs beside the weights to build the model again."""


class Timm(Vision):
    """A model of timm that was created without a classifier."""

    def __init__(self, model: nn.Module, size: int | None = None) -> None:
        self.said = timm.data.resolve_model_data_config(model)
        if size is not None:
            self.said["input_size"] = (3, size, size)
            if hasattr(model, "set_input_size"):
                model.set_input_size(img_size=size)
        self.head = model.pretrained_cfg.get("classifier") or Vision.head
        super().__init__(model, timm.data.create_transform(**self.said), model)

    def write_config(self, folder: Path, class_names: Sequence[str]) -> None:
        self.model.num_classes = len(class_names)
        said = {"pretrained_cfg": self.said | {"num_classes": len(class_names)}}
        said["label_names"] = list(class_names)
        save_config_for_hf(self.model, folder / "config.json", model_config=said)


class Transformers(Vision):
    """A model of transformers: what CLIP and SigLIP compare with text, else what the pooler makes.

    Where a checkpoint has no weights for a pooler (ViT's), the class token, or else the mean of all.
    """

    def __init__(self, model: nn.Module) -> None:
        self.processor = AutoImageProcessor.from_pretrained(model.name_or_path)
        names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
        self.class_token = bool(names & {"cls_token", "class_token", "class_embedding"})
        super().__init__(model, self._processed, self._pooled)

    def _processed(self, picture: Image.Image) -> Tensor:
        return self.processor(picture, return_tensors="pt")["pixel_values"][0]

    def _pooled(self, pictures: Tensor) -> Tensor:
        output = getattr(self.model, "get_image_features", self.model)(pixel_values=pictures)
        untrained = hasattr(getattr(self.model, "pooler", None), "dense")
        if getattr(output, "pooler_output", None) is not None and not untrained:
            return output.pooler_output.flatten(1)
        tokens = getattr(output, "last_hidden_state", output)  # (B, N, d), or (B, d, H, W) of grids
        if not isinstance(tokens, Tensor) or tokens.dim() < 3:
            return tokens
        if self.class_token:
            return tokens[:, 0]
        return tokens.mean(1) if tokens.dim() == 3 else tokens.flatten(2).mean(2)

    def write_config(self, folder: Path, class_names: Sequence[str]) -> None:
        self.model.config.id2label = dict(enumerate(class_names))
        self.model.config.label2id = {name: label for label, name in enumerate(class_names)}
        self.model.config.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_vision(name: str, image_size: int | None = None) -> Vision:
    """A vision model with its library's pretrained weights.

    Args:
        name: timm/vit_small_patch14_dinov2, or timm/local-dir:FOLDER, which timm's ``save_for_hf`` wrote;
            open_clip/ViT-B-16-quickgelu:openai, or with a file of weights behind the colon, whose
            features are what it compares with texts; facebook/dinov2-small on the hub, or a folder that
            transformers' ``save_pretrained`` wrote; or tiny-clip, which comes with the course.
        image_size: side in pixels, in place of the own one of timm's or open_clip's model.
    """
    name = "".join(map(str, divided_name(name)))
    try:
        vision = _loaded(name, image_size)
    except Exception as error:  # each library raises kinds of its own, and the hub's on top
        if isinstance(error, SerialLoRAError):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SerialLoRAError(
            f"the model {name!r} cannot be used ({reason}); check its name (`fit --help` says which forms "
            "it has), --image-size, and whether its weights are on this machine or can be fetched."
        ) from error
    if image_size not in (None, vision.size):
        raise SerialLoRAError(f"{name} takes no other size of pictures; leave --image-size out.")
    vision.source = (name, image_size)
    return vision


def _loaded(name: str, size: int | None) -> Vision:
    library, _, rest = name.partition("/")
    torch.manual_seed(0)  # of layers that a checkpoint lacks; they are the same each time
    if name == TINY_MODEL:
        tiny = load_clip("tiny")
        return Vision(tiny.model, tiny.test_transform, tiny.model.encode_image)
    if library == "timm":
        return Timm(timm.create_model(rest, pretrained=True, num_classes=0), size)
    if library == "open_clip":
        kind, _, tag = rest.partition(":")
        model, prepare = open_clip.create_model_from_pretrained(kind, tag, force_image_size=size)
        return Vision(model, prepare, model.encode_image)
    return Transformers(AutoModel.from_pretrained(name))


def divided_name(name: str) -> tuple[str, Path | str]:
    """A model's name in two: its library's part, and the whole path of weights on this machine or ""."""
    library, place = "", name
    if name.startswith(("timm/", "open_clip/")):
        library, colon, place = name.partition(":")
        library += colon
    path = expanded(place).absolute()
    there = place and name != TINY_MODEL and path.exists()
    return (library, path) if there else (name, "")


class PictureClassifier(nn.Module):
    """Scores for classes from a model's features: forward (B, 3, size, size) -> (B, C).

    The features are brought to mean 0 and deviation 1 within each picture, so that one learning rate
    suits every model. The adapter goes into the whole: ``inject(classifier, config, also_train=["head"])``.
    """

    def __init__(self, vision: Vision, class_names: Sequence[str]) -> None:
        super().__init__()
        self.vision, self.model, self.class_names = vision, vision.model, list(class_names)
        self.head = nn.Linear(vision.width, len(class_names))
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def features(self, pictures: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, d), float32, each row of mean 0 and deviation 1."""
        features = self.vision.features(pictures).float()
        return nn.functional.layer_norm(features, features.shape[-1:])

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures))

    def train(self, mode: bool = True) -> PictureClassifier:
        """As every module's, but for BatchNorms: their statistics stay the base's, as no file has others."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


@torch.no_grad()
def encode(classifier: PictureClassifier, pictures: Pictures) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, d), scores (N, C) and labels (N,) of all pictures, in order, on the CPU."""
    classifier.eval()
    device, features, labels = classifier.head.weight.device, [], []
    for batch, batch_labels in batches_of(pictures, OnPicture(classifier.vision.prepare), BATCH):
        features.append(classifier.features(batch.to(device)))
        labels.append(batch_labels)
    found = torch.cat(features)
    return found.cpu(), classifier.head(found).cpu(), torch.cat(labels)


@torch.no_grad()
def predict(classifier: PictureClassifier, paths: Sequence[str | Path]) -> Tensor:
    """Probabilities (N, C) of picture files; NaN, and a warning, where one cannot be read."""
    shares = torch.full((len(paths), len(classifier.class_names)), torch.nan)
    for start in range(0, len(paths), BATCH):
        read = {}
        for row, path in enumerate(paths[start : start + BATCH], start):
            try:
                read[row] = classifier.vision.prepare(read_picture(path, upright=True))
            except SerialLoRAError as error:
                warnings.warn(str(error), stacklevel=3)
        if read:
            shares[[*read]] = classifier(torch.stack([*read.values()])).softmax(-1)
    return shares


@torch.no_grad()
def _seen(classifier: PictureClassifier) -> list[float]:
    """Some features of a picture that is always the same, by which a model is known again."""
    picture = classifier.vision.prepare(Image.radial_gradient("L").convert("RGB"))[None]
    return classifier.eval().features(picture.to(classifier.head.weight.device))[0, :8].tolist()


def save_classifier(classifier: PictureClassifier, folder: Path, **more: object) -> Path:
    """Write adapter and head to one file, as `save_adapter`; what else belongs to them are its notes."""
    notes = {"class_names": classifier.class_names, "vision": classifier.vision.source}
    notes |= {"seen": _seen(classifier), **more}
    in_json = {name: json.dumps(said) for name, said in notes.items()}
    return save_adapter(classifier, folder / ADAPTER_FILE, notes=in_json)


def open_classifier(folder: str | Path) -> PictureClassifier:
    """A classifier that `serial-lora fit` made, with its model."""
    path = expanded(folder) / ADAPTER_FILE
    notes = read_header(path).notes
    try:
        names = ("vision", "class_names", "seen")
        (model, size), class_names, seen = (json.loads(notes[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise SerialLoRAError(
            f"{path} is no classifier of this version of `serial-lora fit`; fit the pictures again."
        ) from error
    classifier = PictureClassifier(load_vision(model, size), class_names)
    with warnings.catch_warnings(action="ignore"):  # fit has told what inject warns of
        load_adapter(classifier, path)
    now = _seen(classifier)
    if len(seen) != len(now) or not np.allclose(now, seen, atol=0.05):  # their deviation is 1
        raise SerialLoRAError(
            f"{model} gives other features than when {path.parent} was fitted: its weights, or how it "
            "prepares pictures, have changed; restore them, or fit again."
        )
    return classifier.eval()
