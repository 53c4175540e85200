"""Any vision model as a classifier of one's own pictures: its transform, its features, a head, its files."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose

from serial_lora import adapters
from serial_lora.errors import SerialLoRAError, require_number
from serial_lora.files import (
    checksum,
    load_adapter,
    read_tensors,
    require_checksum,
    save_adapter,
    write_whole,
)
from serial_lora_course.data.types import Pictures
from serial_lora_course.files import ADAPTER_FILE, refusals_told
from serial_lora_course.labs.training import OnPicture, batches_of
from serial_lora_course.models.clip import OPENAI, TrainTransform, cut_to_middle

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HEAD_FILE = "head.safetensors"
HEAD_FORMAT = "serial-lora head 1"


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model's input, then (x - mean) / std by channel.

    Attributes:
        size: of the input's sides, in pixels.
        resize: side that a picture is brought to, before the square in its middle is cut out; ``size``
            if left out.
        interpolation: of that, as timm calls it.
        crop_mode: timm's: ``center`` keeps the proportions of the picture, ``squash`` does not, and
            ``border`` fills up.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    resize: int | None = None
    interpolation: str = "bicubic"
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        require_number("size", self.size, whole=True, least=1)

    def at(self, size: int) -> Preprocessing:
        """The same for pictures of another size."""
        resize = self.resize and round(self.resize * size / self.size)
        return replace(self, size=size, resize=resize)

    def for_test(self) -> Callable:
        """The whole picture, or its middle: PIL picture -> (3, size, size)."""
        pct = self.size / ((self.resize or self.size) + 0.5)  # timm rounds size / pct down
        prepare = timm.data.create_transform(
            self.size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=pct,
            crop_mode=self.crop_mode,
        )
        return Compose([cut_to_middle, prepare]) if self.crop_mode == "center" else prepare

    def for_training(self, crop: float) -> Callable:
        """A random square that keeps at least ``crop`` of the area, mirrored half of the time."""
        return TrainTransform(self.size, (crop, 1.0), self.mean, self.std)


def preprocessing_of(model: nn.Module, size: int | None = None) -> Preprocessing:
    """What a model of open_clip, timm or transformers says about its inputs.

    Args:
        size: of the pictures, in place of the model's own.

    Raises:
        SerialLoRAError: the model does not say how large its pictures are, or how they are normalised.
    """
    tower = getattr(model, "visual", model)
    if hasattr(tower, "preprocess_cfg"):  # made by open_clip.create_model
        said = tower.preprocess_cfg
        modes = {"shortest": "center", "longest": "border"}
        mode = modes.get(mode := said.get("resize_mode", "shortest"), mode)
        normal = tuple(said["mean"]), tuple(said["std"])
        found = Preprocessing(_side(said["size"]), *normal, None, said["interpolation"], mode)
    elif hasattr(tower, "forward_head"):
        said = timm.data.resolve_model_data_config(tower)
        patches = getattr(tower, "patch_embed", None)
        side = _side(getattr(patches, "img_size", None) or said["input_size"][1:])
        found = Preprocessing(
            side,
            said["mean"],
            said["std"],
            int(side / said["crop_pct"]),
            said["interpolation"],
            said["crop_mode"],
        )
    elif hasattr(getattr(model, "config", None), "model_type"):
        found = _of_transformers(model)
    elif hasattr(tower, "image_size"):  # open_clip's classes, made by hand
        found = Preprocessing(_side(tower.image_size), *OPENAI)
    else:
        raise SerialLoRAError(
            f"{type(model).__name__} does not say how large its pictures are; pass "
            "preprocessing=Preprocessing(size=...) with the size it was made for."
        )
    return found if size is None else found.at(size)


def _side(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else int(size[0])


def _of_transformers(model: nn.Module) -> Preprocessing:
    """What the processor beside a model of transformers does."""
    from transformers import AutoImageProcessor

    processor = None
    with suppress(OSError, ValueError):
        processor = model.name_or_path and AutoImageProcessor.from_pretrained(model.name_or_path)
    if not processor:
        raise SerialLoRAError(
            f"there is no preprocessor_config.json beside {model.name_or_path or type(model).__name__}, "
            "which says how pictures are normalised; put its publisher's there, or pass "
            "preprocessing=Preprocessing(...)."
        )
    said = processor.to_dict()
    cut, asked = said.get("do_center_crop"), dict(said["size"])
    sides = [asked[name] for name in ("height", "width", "shortest_edge") if asked.get(name)]
    size = dict(said["crop_size"])["height"] if cut else sides[0] if sides else 0
    if not said.get("do_resize") or len({*sides}) != 1 or size > sides[0]:
        raise SerialLoRAError(
            f"the processor of {model.name_or_path} makes no square of a picture; pass "
            "preprocessing=Preprocessing(...)."
        )
    normal = said["image_mean"], said["image_std"]
    normal = map(tuple, normal if said.get("do_normalize") else ([0.0] * 3, [1.0] * 3))
    mode = "center" if asked.get("shortest_edge") else "squash"
    interpolation = Image.Resampling(said["resample"]).name.lower()
    return Preprocessing(size, *normal, sides[0], interpolation, mode)


def picture_features(model: nn.Module, pictures: Tensor) -> Tensor:
    """One vector a picture, as the model's library gives it: (B, 3, size, size) -> (B, d).

    open_clip's and transformers' CLIP and SigLIP give what they compare with text; timm's what it gives
    its own classifier. Other models of transformers give what their pooler makes, unless its weights are
    random where a checkpoint has none (ViT's); then the class token, or the mean of all where there is
    none. Any other module is called.

    Raises:
        SerialLoRAError: what comes out is not one vector a picture.
    """
    if hasattr(model, "encode_image"):
        output = model.encode_image(pictures)
    elif hasattr(model, "forward_head"):
        output = model.forward_head(model.forward_features(pictures), pre_logits=True)
    elif hasattr(getattr(model, "config", None), "model_type"):
        ask = getattr(model, "get_image_features", model.forward)
        vision, how = getattr(model.config, "vision_config", model.config), {}
        if pictures.shape[-1] != _side(getattr(vision, "image_size", pictures.shape[-1])):
            asked = "interpolate_pos_encoding"
            how = {asked: True} if asked in inspect.signature(ask).parameters else {}
        output = _pooled(model, ask(pixel_values=pictures, **how))
    else:
        output = model(pictures)
    # shapes, as len() would fix the number of pictures in an exported graph
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[0] != pictures.shape[0]:
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        several = f"{len(pictures)} pictures" if len(pictures) > 1 else "one picture"
        raise SerialLoRAError(
            f"{type(model).__name__} gave {what} for {several}, and not one vector for each "
            "picture; pass the model without its classifier, or a module that returns (B, d)."
        )
    return output


def _pooled(model: nn.Module, output: object) -> object:
    """One vector a picture out of what a model of transformers gives."""
    if getattr(output, "image_embeds", None) is not None:
        return output.image_embeds
    untrained = hasattr(getattr(model, "pooler", None), "dense")
    if getattr(output, "pooler_output", None) is not None and not untrained:
        return output.pooler_output.flatten(1)
    tokens = getattr(output, "last_hidden_state", None)  # (B, N, d), or (B, d, H, W) of grids
    if tokens is None:
        return output
    names = (name.rpartition(".")[2] for name, _ in model.named_parameters())
    if {*names} & {"cls_token", "class_token", "class_embedding"}:
        return tokens[:, 0]
    return tokens.mean(1) if tokens.dim() == 3 else tokens.flatten(2).mean(2)


class PictureClassifier(nn.Module):
    """Scores for classes from a model's features: forward (B, 3, size, size) -> (B, C).

    The features are brought to mean 0 and deviation 1 within each picture, so that one learning
    rate suits every model, and a linear head, zero at the start, turns them into scores.

    Args:
        model: any vision model, or one that has a vision tower. It is frozen; put the adapter into
            it (``inject(classifier.model, ...)``, before or after), and the head stays trainable.
        class_names: one a class.
        preprocessing: what its pictures look like; asked of the model when left out.

    Raises:
        SerialLoRAError: fewer than two names or one twice, a model that cannot take such pictures,
            or as :func:`preprocessing_of` and :func:`picture_features`.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        check_class_names(class_names)
        self.preprocessing = preprocessing or preprocessing_of(model)
        self.class_names = list(class_names)
        self.model = model.eval()
        if not adapters(model):  # else `inject` has frozen all but those
            model.requires_grad_(False)
        parameter = next(model.parameters())
        side = self.preprocessing.size
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        noise = noise.to(parameter.device, parameter.dtype)
        try:
            with torch.no_grad():
                vector, again = (picture_features(self.model, noise) for _ in range(2))
        except (RuntimeError, ValueError, AssertionError) as error:  # of the model's own library
            if isinstance(error, SerialLoRAError):
                raise
            raise SerialLoRAError(
                f"{type(model).__name__} cannot take pictures of {side} x {side} pixels ({error}); "
                "pass the preprocessing that it was made for."
            ) from error
        if not torch.allclose(vector, again, rtol=1e-2):
            raise SerialLoRAError(
                f"{type(model).__name__} gives another vector each time for one and the same picture, as "
                "models do that mask parts of it; pass another model."
            )
        self.head = nn.Linear(vector.shape[1], len(class_names), device=parameter.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, pictures: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, d), float32, each row of mean 0 and deviation 1."""
        pictures = pictures.to(next(self.model.parameters()).dtype)  # the model may be in bfloat16
        features = picture_features(self.model, pictures).float()
        return nn.functional.layer_norm(features, features.shape[-1:])

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures))


def check_class_names(names: Sequence[str]) -> None:
    """Refuse what are not at least two different words."""
    good = not isinstance(names, str) and all(isinstance(name, str) for name in names)
    if not good or len(set(names)) != len(names) or len(names) < 2:
        raise SerialLoRAError(
            f"a classifier needs two classes or more, each with a name of its own, not {names!r}."
        )


@torch.no_grad()
def encode(
    classifier: PictureClassifier, pictures: Pictures, batch_size: int = 128
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, d), scores (N, C) and labels (N,) of all pictures, in order, on the CPU.

    Raises:
        SerialLoRAError: there is no picture.
    """
    if not len(pictures):
        raise SerialLoRAError("there is no picture to look at; pass some.")
    classifier.eval()
    device = classifier.head.weight.device
    features, labels = [], []
    way_in = OnPicture(classifier.preprocessing.for_test())
    for batch, batch_labels in batches_of(pictures, way_in, batch_size):
        features.append(classifier.features(batch.to(device)))
        labels.append(batch_labels)
    found = torch.cat(features)
    return found.cpu(), classifier.head(found).cpu(), torch.cat(labels)


def save_classifier(classifier: PictureClassifier, folder: str | Path) -> Path:
    """Write adapter.safetensors and head.safetensors (with the class names) into a folder.

    Raises:
        SerialLoRAError: the model has no adapter, a value is not finite, or as `save_adapter`.
    """
    folder = Path(folder)
    head = {name: tensor.cpu() for name, tensor in classifier.head.state_dict().items()}
    if not all(tensor.isfinite().all() for tensor in head.values()):
        raise SerialLoRAError(
            "the head holds values that are not finite numbers, so nothing was saved; train again "
            "with a smaller learning rate."
        )
    header = {"format": HEAD_FORMAT, "class_names": json.dumps(classifier.class_names)}
    header["preprocessing"] = json.dumps(asdict(classifier.preprocessing))
    with refusals_told():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=folder) as new:  # both are written, or neither
            adapter = save_adapter(classifier.model, Path(new) / ADAPTER_FILE)
            header["adapter"] = _sha256(adapter)
            header["checksum"] = checksum(header, head)
            written = write_whole(Path(new) / HEAD_FILE, safetensors.torch.save(head, header))
            for file in (adapter, written):
                os.replace(file, folder / file.name)
    return folder


def load_classifier(model: nn.Module, folder: str | Path) -> PictureClassifier:
    """A classifier out of its base model and the folder that `save_classifier` wrote.

    Raises:
        SerialLoRAError: a file is missing, damaged or belongs to another model; the model may be
            frozen and in evaluation mode then, and is otherwise as it was.
    """
    path, adapter = Path(folder) / HEAD_FILE, Path(folder) / ADAPTER_FILE
    header, head = read_tensors(path, HEAD_FORMAT, "classifier")
    require_checksum(path, header, head)
    try:
        names, said = (json.loads(header[name]) for name in ("class_names", "preprocessing"))
        check_class_names(names)
        trained_with = Preprocessing(**said | {k: tuple(said[k]) for k in ("mean", "std")})
        belongs_to = header["adapter"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise SerialLoRAError(f"{path} has no list of class names; save it again.") from error
    if not all(tensor.float().isfinite().all() for tensor in head.values()):
        raise SerialLoRAError(
            f"{path} holds values that are not finite numbers; the training that wrote it diverged, "
            "use an earlier file."
        )
    classifier = PictureClassifier(model, names, trained_with)
    shapes = {name: tensor.shape for name, tensor in classifier.head.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in head.items()}:
        raise SerialLoRAError(
            f"the head in {path} does not fit the features of {type(model).__name__}; load the "
            "model that it was trained with."
        )
    if adapter.is_file() and belongs_to != _sha256(adapter):
        raise SerialLoRAError(
            f"{path} was not saved together with {ADAPTER_FILE} beside it; save both again."
        )
    load_adapter(model, adapter)
    classifier.head.load_state_dict(head)
    return classifier


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
