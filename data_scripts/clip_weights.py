"""OpenAI's weights for CLIP: ``python data_scripts/clip_weights.py --help``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import open_clip
import torch
import typer
from huggingface_hub import hf_hub_url
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from data_scripts.fetching.command import Quiet, WeightsRoot
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, fetch_weights
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folders import data_root
from serial_lora_course.door import enter
from serial_lora_course.models.clip import PAPER_MODEL, load_clip, openai_file
from serial_lora_course.models.weights import require_finite, weights_path

HUB_FILE = "open_clip_model.safetensors"
app = typer.Typer(add_completion=False, rich_markup_mode=None)


def published(name: str) -> dict:
    """What open_clip knows of OpenAI's weights for an architecture: ``url`` and ``hf_hub``.

    Raises:
        SerialLoRAError: OpenAI published none.
    """
    facts = open_clip.get_pretrained_cfg(name, "openai")
    if not facts:
        raise SerialLoRAError(
            f"OpenAI published no weights for {name!r}; choose {PAPER_MODEL} or another name from "
            "open_clip.list_models() that ends with -quickgelu."
        )
    return facts


def weights_file(name: str) -> Archive:
    """The safetensors file on the hub that open_clip itself would fetch.

    Neither its size nor its hash is stated by its publisher in a form we can carry; both are
    recorded at the first download, and every tensor's name and shape is checked.
    """
    url = hf_hub_url(published(name)["hf_hub"].rstrip("/"), HUB_FILE)
    return Archive(file_name=openai_file(name), urls=(url,), facts=FileFacts(), moves={})


def check(path: Path, name: str = PAPER_MODEL) -> None:
    """Raise unless the file fills the model, with the activation it was trained with."""
    model = load_clip("paper", name, path).model
    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    if not all(any(isinstance(part, QuickGELU) for part in block.modules()) for block in blocks):
        raise SerialLoRAError(
            f"open_clip built {name} without QuickGELU, so the weights would mislead; "
            "install open_clip_torch 2.30 or newer."
        )
    require_finite(model, path)


def convert(source: Path, destination: Path, name: str = PAPER_MODEL) -> None:
    """Turn OpenAI's own TorchScript file into safetensors.

    TorchScript holds code, so the file is opened only if its SHA-256 is the one OpenAI published.

    Raises:
        SerialLoRAError: not OpenAI's file, or ``destination`` exists.
    """
    if destination.exists():
        raise SerialLoRAError(f"{destination} exists already; move it away to convert again.")
    url = published(name)["url"]
    if not source.is_file():
        raise SerialLoRAError(f"There is no file {source}; download {url} to it.")
    *_, sha256, file_name = url.split("/")  # OpenAI names the folder after the file's SHA-256
    mismatch = FileFacts(sha256=sha256).mismatch(source)
    if mismatch:
        raise SerialLoRAError(
            f"{source} is not OpenAI's {file_name} ({mismatch}), and was not opened because such "
            f"files can hold code; download it from {url}."
        )
    state = torch.jit.load(source, map_location="cpu").state_dict()
    for key in ("input_resolution", "context_length", "vocab_size"):  # sizes, not weights
        state.pop(key, None)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.converting")
    try:
        save_file({key: tensor.float().contiguous() for key, tensor in state.items()}, temporary)
        check(temporary, name)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


@app.command()
def main(
    root: WeightsRoot = None,
    name: Annotated[
        str, typer.Option("--model", help="Architecture, by open_clip's name.")
    ] = PAPER_MODEL,
    base_url: Annotated[
        str | None,
        typer.Option(help="Fetch BASE_URL/MODEL-openai.safetensors instead of asking the hub."),
    ] = None,
    check_file: Annotated[
        Path | None, typer.Option("--check", help="Only check a safetensors file that you have.")
    ] = None,
    convert_file: Annotated[
        Path | None,
        typer.Option("--convert", help="Make the safetensors file from OpenAI's own .pt."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch OpenAI's weights for CLIP as a safetensors file, and check them.

    The file is the one that open_clip loads for --model, pretrained="openai" (MIT licence, 0.6 GB
    for ViT-B-16-quickgelu, which the labs adapt; ViT-B-32-quickgelu judges drawings). Run the command again after an interruption: it goes on where it stopped.
    Without a network, fetch the file elsewhere, put it into ROOT/weights/ under the name
    ViT-B-16-quickgelu-openai.safetensors, and run the command: it checks what is there.

    Cite: Radford et al.: Learning Transferable Visual Models From Natural Language Supervision.
    ICML 2021
    """
    path = weights_path(openai_file(name), root)
    if check_file is not None:
        path = check_file
        check(path, name)
    elif convert_file is not None:
        convert(convert_file, path, name)
    else:
        path = fetch_weights(
            weights_file(name),
            "clip_weights",
            data_root(root),
            partial(check, name=name),
            base_url=base_url,
            progress=not quiet,
        )
    typer.echo(f"{path} holds {name}; use it with --scale paper --weights {path}")


if __name__ == "__main__":
    enter("clip_weights", app)
