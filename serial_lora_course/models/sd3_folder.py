"""A pipeline out of a diffusers folder: SD3's and all there, or one sentence says what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, ModelMixin, SD3Transformer2DModel, StableDiffusion3Pipeline

from serial_lora.errors import SerialLoRAError

#: Parts that must be there; T5 (text_encoder_3, tokenizer_3) may be missing.
PARTS = (
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "transformer",
    "vae",
)
#: Numbers at paper scale. What is frozen may be coarse, but for the autoencoder, which carries
#: every grey value of a picture.
PAPER_TYPES = {"default": torch.bfloat16, "vae": torch.float32}
Part = TypeVar("Part", bound=ModelMixin)


def load_folder(folder: Path, remedy: str) -> StableDiffusion3Pipeline:
    """The pipeline in a folder, in `PAPER_TYPES`, without T5 where the folder has none.

    Args:
        folder: as ``StableDiffusion3Pipeline.save_pretrained`` writes it.
        remedy: the end of every error: what to do about such a folder.

    Raises:
        SerialLoRAError: no such folder, or not SD3's; or a part that is missing, damaged or of
            another model. No pickle is opened.
    """
    _check_folder(folder, remedy)
    options = {"dtype": PAPER_TYPES}
    if not (folder / "text_encoder_3").is_dir():
        options |= {"text_encoder_3": None, "tokenizer_3": None}
    options["transformer"] = load_part(
        SD3Transformer2DModel, folder / "transformer", remedy, PAPER_TYPES["default"]
    )
    options["vae"] = load_part(AutoencoderKL, folder / "vae", remedy, PAPER_TYPES["vae"])
    with _in_one_sentence(folder, remedy):
        return StableDiffusion3Pipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **options
        )


def load_part(
    kind: type[Part], folder: Path, remedy: str, dtype: torch.dtype = torch.float32
) -> Part:
    """SD3's transformer or autoencoder from a folder that holds its tensors and no others.

    diffusers only mentions those that are missing, and leaves them random.

    Raises:
        SerialLoRAError: no such folder, damaged, or another model's.
    """
    _require_folder(folder, remedy)
    with _in_one_sentence(folder, remedy):
        part, found = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=dtype,
        )
    for what, names in (("lacks", found["missing_keys"]), ("has", found["unexpected_keys"])):
        if names:
            raise SerialLoRAError(
                f"{folder} holds another model's weights than its config.json says: it {what} "
                f"{sorted(names)[0]} ({len(names)} such tensors); {remedy}"
            )
    if kind is AutoencoderKL and None in (part.config.scaling_factor, part.config.shift_factor):
        raise SerialLoRAError(
            f"{folder}/config.json states no scaling_factor and shift_factor, so this is not SD3's "
            f"autoencoder; {remedy}"
        )
    return part


def _require_folder(folder: Path, remedy: str) -> None:
    if os.path.isfile(folder):
        raise SerialLoRAError(
            f"{folder} is a single file, and SD3 is loaded from a diffusers folder, where "
            f"model_index.json lies beside transformer, vae and the other parts; {remedy}"
        )
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise SerialLoRAError(f"There is no folder {folder}; {remedy}")


def _check_folder(folder: Path, remedy: str) -> None:
    """Refuse what cannot be an SD3 pipeline's folder, before any weights are opened."""
    _require_folder(folder, remedy)
    try:
        kind = json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SerialLoRAError(
            f"{folder} is no folder of a diffusers pipeline: its model_index.json is missing or "
            f"unreadable; {remedy}"
        ) from error
    if kind != StableDiffusion3Pipeline.__name__:
        raise SerialLoRAError(f"{folder} holds a {kind}, not Stable Diffusion 3; {remedy}")
    for part in PARTS:
        if not (folder / part).is_dir():
            raise SerialLoRAError(f"{folder} lacks its part {part}; {remedy}")


@contextmanager
def _in_one_sentence(folder: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise whatever the broken file led them to
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise SerialLoRAError(f"{folder} cannot be loaded ({reason}); {remedy}") from error
