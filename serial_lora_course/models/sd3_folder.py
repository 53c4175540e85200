"""A pipeline out of a diffusers folder: SD3's and all there, or one sentence says what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

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


def load_folder(folder: Path, scale: str, remedy: str) -> StableDiffusion3Pipeline:
    """The pipeline in a folder, without T5 at tiny scale or where the folder has none.

    Args:
        folder: as ``StableDiffusion3Pipeline.save_pretrained`` writes it.
        scale: ``tiny`` for float32, ``paper`` for `PAPER_TYPES`.
        remedy: the end of every error: what to do about such a folder.

    Raises:
        SerialLoRAError: as `check_folder`; or a part that is damaged or of another model. No
            pickle is opened.
    """
    check_folder(folder, remedy)
    options = {"dtype": PAPER_TYPES} if scale == "paper" else {}
    if scale == "tiny" or not (folder / "text_encoder_3").is_dir():
        options |= {"text_encoder_3": None, "tokenizer_3": None}
    try:
        with quiet() if scale == "tiny" else nullcontext():
            options["transformer"] = _load_part(
                SD3Transformer2DModel, folder / "transformer", scale, remedy
            )
            options["vae"] = _load_part(AutoencoderKL, folder / "vae", scale, remedy)
            _refuse_other_autoencoders(options["vae"], folder / "vae", remedy)
            return StableDiffusion3Pipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, **options
            )
    except (MemoryError, SerialLoRAError):
        raise
    except Exception as error:  # the libraries raise whatever the broken file led them to
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise SerialLoRAError(f"{folder} cannot be loaded ({reason}); {remedy}") from error


def check_folder(folder: Path, remedy: str) -> None:
    """Refuse what cannot be an SD3 pipeline's folder, before any weights are opened.

    Raises:
        SerialLoRAError: no such folder, no pipeline's, another pipeline's, or one with parts
            missing.
    """
    if os.path.isfile(folder):
        raise SerialLoRAError(
            f"{folder} is a single file, and SD3 is loaded from a diffusers folder, where "
            f"model_index.json lies beside transformer, vae and the other parts; {remedy}"
        )
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise SerialLoRAError(f"There is no folder {folder}; {remedy}")
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


def _load_part(
    kind: type[SD3Transformer2DModel] | type[AutoencoderKL], folder: Path, scale: str, remedy: str
) -> SD3Transformer2DModel | AutoencoderKL:
    """A model whose file holds its tensors and no others.

    diffusers only mentions those that are missing, and leaves them random.
    """
    options = {}
    if scale == "paper":
        options["dtype"] = PAPER_TYPES.get(folder.name, PAPER_TYPES["default"])
    part, found = kind.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
    )
    for what, names in (("lacks", found["missing_keys"]), ("has", found["unexpected_keys"])):
        if names:
            raise SerialLoRAError(
                f"{folder} holds another model's weights than its config.json says: it {what} "
                f"{sorted(names)[0]} ({len(names)} such tensors); {remedy}"
            )
    return part


def _refuse_other_autoencoders(autoencoder: AutoencoderKL, folder: Path, remedy: str) -> None:
    if None in (autoencoder.config.scaling_factor, autoencoder.config.shift_factor):
        raise SerialLoRAError(
            f"{folder}/config.json states no scaling_factor and shift_factor, so this is not SD3's "
            f"autoencoder; {remedy}"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """diffusers and transformers without the progress bars that they show for files of any size."""
    libraries = [
        library.utils.logging
        for library in (diffusers, transformers)
        if library.utils.logging.is_progress_bar_enabled()
    ]
    for logging in libraries:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in libraries:
            logging.enable_progress_bar()
