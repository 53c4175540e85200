"""OpenAI's weights for CLIP ViT-B/16: ``python data_scripts/clip_weights.py --help``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from huggingface_hub import hf_hub_url
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.download import FileFacts, data_root
from serial_lora_course.data.sources import (
    Archive,
    Quiet,
    WeightsRoot,
    fetch_weights,
    told_in_one_sentence,
)
from serial_lora_course.models.clip import PAPER_MODEL, load_clip
from serial_lora_course.models.weights import require_finite

FILE_NAME = f"{PAPER_MODEL}-openai.safetensors"
#: What open_clip fetches for this model and ``pretrained="openai"``.
HUB_REPOSITORY, HUB_FILE = "timm/vit_base_patch16_clip_224.openai", "open_clip_model.safetensors"
#: OpenAI names the folder of its own file after the file's SHA-256.
OPENAI_SHA256 = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
OPENAI_URL = f"https://openaipublic.azureedge.net/clip/models/{OPENAI_SHA256}/ViT-B-16.pt"
app = typer.Typer(add_completion=False, rich_markup_mode=None)


def weights_file() -> Archive:
    """The safetensors file on the hub that open_clip itself would fetch.

    Neither its size nor its hash is stated by its publisher in a form we can carry; both are
    recorded at the first download, and every tensor's name and shape is checked.
    """
    url = hf_hub_url(HUB_REPOSITORY, HUB_FILE)
    return Archive(file_name=FILE_NAME, urls=(url,), facts=FileFacts(), moves={})


def check(path: Path) -> None:
    """Raise unless the file fills the paper's model, with the activation it was trained with."""
    model = load_clip("paper", weights=path).model
    blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
    if not all(any(isinstance(part, QuickGELU) for part in block.modules()) for block in blocks):
        raise SerialLoRAError(
            f"open_clip built {PAPER_MODEL} without QuickGELU, so the weights would mislead; "
            "install open_clip_torch 2.30 or newer."
        )
    require_finite(model, path)


def convert(source: Path, destination: Path, sha256: str = OPENAI_SHA256) -> None:
    """Turn OpenAI's own TorchScript file into safetensors.

    TorchScript holds code, so the file is opened only if its SHA-256 is the one OpenAI published.

    Raises:
        SerialLoRAError: not OpenAI's file, or ``destination`` exists.
    """
    if destination.exists():
        raise SerialLoRAError(f"{destination} exists already; move it away to convert again.")
    if not source.is_file():
        raise SerialLoRAError(f"there is no file {source}; download {OPENAI_URL} to it.")
    mismatch = FileFacts(sha256=sha256).mismatch(source)
    if mismatch:
        raise SerialLoRAError(
            f"{source} is not OpenAI's ViT-B-16.pt ({mismatch}), and was not opened because such "
            f"files can hold code; download it from {OPENAI_URL}."
        )
    state = torch.jit.load(source, map_location="cpu").state_dict()
    for key in ("input_resolution", "context_length", "vocab_size"):  # sizes, not weights
        state.pop(key, None)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.converting")
    try:
        save_file({key: tensor.float().contiguous() for key, tensor in state.items()}, temporary)
        check(temporary)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


@app.command()
def main(
    root: WeightsRoot = None,
    base_url: Annotated[
        str | None, typer.Option(help=f"Fetch BASE_URL/{FILE_NAME} instead of asking the hub.")
    ] = None,
    check_file: Annotated[
        Path | None, typer.Option("--check", help="Only check a safetensors file that you have.")
    ] = None,
    convert_file: Annotated[
        Path | None,
        typer.Option("--convert", help="Make the safetensors file from OpenAI's ViT-B-16.pt."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch OpenAI's weights for CLIP ViT-B/16 as a safetensors file, and check them.

    The file is the one that open_clip loads for ViT-B-16-quickgelu, pretrained="openai" (MIT
    licence, 0.6 GB). Run the command again after an interruption: it goes on where it stopped.
    Without a network, fetch the file elsewhere, put it into ROOT/weights/ under the name
    ViT-B-16-quickgelu-openai.safetensors, and run the command: it checks what is there.

    Cite: Radford et al.: Learning Transferable Visual Models From Natural Language Supervision.
    ICML 2021
    """
    folder = data_root(root) / "weights"
    path = folder / FILE_NAME
    with told_in_one_sentence():
        if check_file is not None:
            path = check_file
            check(path)
        elif convert_file is not None:
            convert(convert_file, path)
        else:
            path = fetch_weights(
                weights_file(),
                "clip_weights",
                data_root(root),
                check,
                base_url=base_url,
                progress=not quiet,
            )
    typer.echo(f"{path} holds {PAPER_MODEL}; use it with --scale paper --weights {path}")


if __name__ == "__main__":
    app()
