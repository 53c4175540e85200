"""Mistakes that people make with models, adapters, pictures and training, each really done (lesson 12).

Each is a function that should end in an error of one sentence; none changes what it is given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import timm
from torch import nn

from serial_lora import (
    SerialLoRAConfig,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
    set_scale,
)
from serial_lora_course.data.example_folder import write_example_folder
from serial_lora_course.data.folder import examine_folder, load_folder
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.labs.own import ClassifyConfig, PictureClassifier, fit
from serial_lora_course.models.clip import load_clip

Mistakes = dict[str, Callable[[], object]]


def _small_vit(**options: object) -> nn.Module:
    return timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=48, **options)


def with_models(folder: Path) -> Mistakes:
    """Mistakes with models and adapters; their files go into a folder that is there."""
    config = SerialLoRAConfig
    clip = inject(load_clip("tiny").model, config(rank=8))
    file = save_adapter(clip, folder / "adapter.safetensors")
    half = folder / "half.safetensors"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return {
        "inject twice": lambda: inject(clip, config(rank=8)),
        "a rank of 0": lambda: config(rank=0),
        "a rank above the width": lambda: inject(_small_vit(), config(rank=100)),
        "a text tower where there is none": lambda: inject(
            _small_vit(), config(rank=4, towers=["text"])
        ),
        "a model without attention": lambda: inject(nn.Linear(4, 4), config(rank=2)),
        "merge before inject": lambda: merge(_small_vit()),
        "another scale while merged": lambda: set_scale(merge(copy.deepcopy(clip)), 0.5),
        "a file for another model": lambda: load_adapter(_small_vit(), file),
        "a file for other weights": lambda: load_adapter(
            load_clip("tiny", weights=None).model, file
        ),
        "half a file": lambda: load_adapter(load_clip("tiny").model, half),
        "no file": lambda: load_adapter(
            eject(copy.deepcopy(clip)), Path("no_such_file.safetensors")
        ),
        "GELU with OpenAI's weights": lambda: load_clip("paper", "ViT-B-16"),
    }


def with_pictures(folder: Path) -> Mistakes:
    """Mistakes with pictures and training; two folders of pictures go into a folder that is there."""
    flawed = write_example_folder(folder / "flawed", flawed=True)
    facts = examine_folder(flawed)
    broken = facts.loc[facts["remark"].str.startswith("cannot be read"), "file"].iloc[0]
    data = load_folder(write_example_folder(folder / "sound"))
    names, two = data.class_names, ["one", "two"]
    ready, narrow = (PictureClassifier(_small_vit(), of) for of in (names, two))
    for classifier in (ready, narrow):
        inject(classifier.model, SerialLoRAConfig(rank=4))
    silent = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    return {
        "a class with one picture": lambda: load_folder(flawed),
        "a folder that is not there": lambda: load_folder(flawed / "vehicles"),
        "pictures without class folders": lambda: load_folder(flawed / "vehicle"),
        "a damaged picture": lambda: read_picture(flawed / broken),
        "a model that does not say its size": lambda: PictureClassifier(silent, two),
        "a model that gives a vector per token": lambda: PictureClassifier(
            _small_vit(global_pool=""), two
        ),
        "one class": lambda: PictureClassifier(_small_vit(), ["only"]),
        "fit before inject": lambda: fit(PictureClassifier(_small_vit(), names), data.train),
        "more labels than classes": lambda: fit(narrow, data.train),
        "a rate beyond measure": lambda: fit(
            ready, data.train, ClassifyConfig(lr=1e30), progress=False
        ),
        "a crop larger than the picture": lambda: ClassifyConfig(crop=1.5),
    }
