"""A classifier without this package: its weights with the adapter multiplied in, and what goes with them.

    merge_into_folder("my_classifier", "merged", onnx=True)

What answers as `predict` does, with the model's own library alone, is that library's model with this in the
place of its classifier (``head`` in most of timm's; ``classifier`` beside a model of another library):

    nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, classes))
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import nn

from serial_lora import eject
from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import expanded, refusals_told, write_json
from serial_lora_course.labs.own import PictureClassifier
from serial_lora_course.work.folder import open_classifier

WEIGHTS_FILE, ONNX_FILE, LABELS_FILE = "model.safetensors", "model.onnx", "classifier.json"


def merge_into_folder(folder: str | Path, out: str | Path, onnx: bool = False) -> Path:
    """Write model.safetensors, the model's configuration, and classifier.json.

    The last says what the classes are called, what becomes of a picture, and where the head is.

    Args:
        onnx: write model.onnx too: ``pictures`` (N, 3, size, size) to ``probabilities`` (N, C).

    Raises:
        SerialLoRAError: as `open_classifier`, the adapter cannot be merged, or ONNX's packages are missing.
    """
    out = expanded(out)
    if out.is_file() or out.suffix == ".safetensors":
        raise SerialLoRAError(
            f"merge writes a folder, and {out} is a file's name; give another --out."
        )
    missing = [each for each in ("onnx", "onnxscript") if not importlib.util.find_spec(each)]
    if onnx and missing:
        raise SerialLoRAError(f"--onnx needs more packages: pip install {' '.join(missing)}.")
    classifier, _ = open_classifier(folder)
    eject(classifier.model, keep_merged=True)
    with refusals_told():
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=out) as new:
            _write(classifier, Path(new))
            if onnx:
                _write_onnx(classifier, Path(new) / ONNX_FILE)
            for file in Path(new).iterdir():
                shutil.move(file, out / file.name)
    return out


def _write(classifier: PictureClassifier, place: Path) -> None:
    model, names = classifier.model, classifier.class_names
    own = getattr(model, "pretrained_cfg", {}).get("classifier")  # timm's name of its classifier
    head = own if isinstance(own, str) else "classifier"
    facts = {"class_names": names, "preprocessing": asdict(classifier.preprocessing), "head": head}
    write_json(place / LABELS_FILE, facts)
    state = {name: t.contiguous().clone() for name, t in model.state_dict().items()}
    state |= {
        f"{head}.1.{name}": t.contiguous() for name, t in classifier.head.state_dict().items()
    }
    if own:
        _write_timm(classifier, place)
    elif hasattr(getattr(model, "config", None), "model_type"):
        _write_transformers(classifier, place)
    save_file(state, place / WEIGHTS_FILE, {"format": "pt", "classifier": json.dumps(facts)})


def _write_timm(classifier: PictureClassifier, place: Path) -> None:
    from timm.models import save_for_hf

    see = classifier.preprocessing
    seen = {
        "input_size": (3, see.size, see.size),
        "mean": see.mean,
        "std": see.std,
        "interpolation": see.interpolation,
        "crop_pct": see.size / (see.resize or see.size),
        "crop_mode": see.crop_mode,
        "num_classes": len(classifier.class_names),
    }
    classifier.model.num_classes = len(classifier.class_names)
    said = {"pretrained_cfg": seen, "label_names": classifier.class_names}
    save_for_hf(classifier.model, place, model_config=said, safe_serialization=True)


def _write_transformers(classifier: PictureClassifier, place: Path) -> None:
    from transformers import AutoImageProcessor

    config = classifier.model.config
    config.id2label = dict(enumerate(classifier.class_names))
    config.label2id = {name: label for label, name in config.id2label.items()}
    config.save_pretrained(place)
    AutoImageProcessor.from_pretrained(classifier.model.name_or_path).save_pretrained(place)


def _write_onnx(classifier: PictureClassifier, path: Path) -> None:
    side = classifier.preprocessing.size
    answering = nn.Sequential(classifier, nn.Softmax(-1)).eval()
    several = {0: torch.export.Dim("pictures", min=1)}
    torch.onnx.export(
        answering,
        (torch.rand(2, 3, side, side, device=classifier.head.weight.device),),
        path,
        input_names=["pictures"],
        output_names=["probabilities"],
        dynamic_shapes=(several,),
        external_data=False,
        dynamo=True,
    )
