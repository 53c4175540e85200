"""Stable Diffusion 3 medium, a gated model: ``python data_scripts/sd3_weights.py --help``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars
from torch import nn

from data_scripts.fetching.command import Quiet, WeightsRoot
from data_scripts.fetching.disk import NO_SPACE, one_at_a_time
from serial_lora.errors import SerialLoRAError
from serial_lora_course.door import enter
from serial_lora_course.models.sd3 import PAPER_FOLDER, load_sd3
from serial_lora_course.models.weights import require_finite, weights_path

HUB_REPOSITORY = "stabilityai/stable-diffusion-3-medium-diffusers"
#: Of all that lies there: not the copies in another number format, not the pictures of the page.
WANTED = ("model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model")
UNWANTED = ("*fp16*",)
T5 = ("text_encoder_3/*", "tokenizer_3/*")
CLOSED = (401, 403)  # no token or a wrong one; licence not accepted

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def check(folder: Path) -> str:
    """What a folder holds, in words.

    Raises:
        SerialLoRAError: it does not load as the lab loads it, or not all its numbers are finite.
    """
    backbone = load_sd3("paper", weights=folder)
    for name, part in backbone.pipeline.components.items():
        if isinstance(part, nn.Module):
            require_finite(part, folder / name)
    return f"{backbone.name} with{'' if backbone.pipeline.text_encoder_3 else 'out'} T5"


def fetch(root: Path | None, endpoint: str | None, with_t5: bool) -> tuple[Path, str]:
    """Fetch SD3 medium to ``ROOT/weights/sd3``, unless it is there; check it in any case.

    Returns:
        The folder and what it holds. It appears whole and checked, or not at all.

    Raises:
        SerialLoRAError: the hub does not give it, what came is not good, or what is there was
            fetched without T5.
    """
    folder = weights_path(PAPER_FOLDER, root)
    with one_at_a_time(folder.parent / ".lock", "SD3 medium"):
        if folder.exists():
            held = check(folder)
            if with_t5 and not (folder / "text_encoder_3").is_dir():
                raise SerialLoRAError(
                    f"{folder} was fetched without T5; move it away to fetch it with T5, or say "
                    "--without-t5."
                )
            return folder, held
        begun = folder.with_name(f".{folder.name}.fetching")
        fetch_from_hub(begun, endpoint, with_t5)
        try:
            held = check(begun)
        except SerialLoRAError:
            shutil.rmtree(begun)
            raise
        shutil.rmtree(begun / ".cache", ignore_errors=True)  # the hub's notes for going on
        os.replace(begun, folder)
    return folder, held


def fetch_from_hub(folder: Path, endpoint: str | None, with_t5: bool) -> None:
    """Fetch the files of SD3 medium from the hub, whose owner gives it to who accepts its licence.

    A download that was interrupted goes on where it stopped.

    Args:
        folder: where to put them.
        endpoint: address of another hub, a mirror.
        with_t5: also the largest of the three text encoders, which SD3 can do without.

    Raises:
        SerialLoRAError: the licence is not accepted or the token is missing, the hub is out of
            reach, or the disk is full.
    """
    unwanted = UNWANTED if with_t5 else UNWANTED + T5
    try:
        # Without an answer, snapshot_download would take a folder that is half full for done.
        revision = HfApi(endpoint=endpoint).model_info(HUB_REPOSITORY).sha
        snapshot_download(
            HUB_REPOSITORY,
            revision=revision,
            local_dir=folder,
            endpoint=endpoint,
            allow_patterns=list(WANTED),
            ignore_patterns=list(unwanted),
        )
    except HfHubHTTPError as error:
        if error.response.status_code in CLOSED:
            raise SerialLoRAError(
                "The hub gives Stable Diffusion 3 medium to those who accepted its licence (it "
                f"answers {error.response.status_code}): accept it at "
                f"{constants.ENDPOINT}/{HUB_REPOSITORY}, log in with `hf auth login`, and try "
                "again; or name a folder that you have with --weights."
            ) from error
        raise _unreachable(f"the hub answers {error.response.status_code}") from error
    except Exception as error:  # hub versions differ in how they say that there is no network
        if getattr(error, "errno", None) in NO_SPACE:
            raise SerialLoRAError(
                "The disk is full; free some space, and the same command goes on where it stopped."
            ) from error
        reason = getattr(error, "strerror", None) or "the hub cannot be reached"
        raise _unreachable(reason) from error


def _unreachable(reason: str) -> SerialLoRAError:
    return SerialLoRAError(
        f"Stable Diffusion 3 medium could not be fetched ({reason}); fetch it where there is a "
        "network with `python -m data_scripts.sd3_weights`, then name the folder with --weights."
    )


@app.command()
def main(
    root: WeightsRoot = None,
    endpoint: Annotated[str | None, typer.Option(help="Address of another hub (a mirror).")] = None,
    without_t5: Annotated[
        bool, typer.Option("--without-t5", help="Leave out the largest of three text encoders.")
    ] = False,
    check_folder: Annotated[
        Path | None, typer.Option("--check", help="Only check a folder that you have.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch Stable Diffusion 3 medium from the hub as a diffusers folder, and check it.

    Download size: 15.4 GB, or 5.9 GB with --without-t5; loading it takes as much memory. Licence:
    Stability AI Community License; accept it on the page of the model,
    stabilityai/stable-diffusion-3-medium-diffusers, then log in with `hf auth login`.

    Run the command again after an interruption: it goes on where it stopped. Without a network,
    fetch the folder elsewhere, put it at ROOT/weights/sd3, and run the command: it checks what is
    there. Without T5 the model reads prompts with its two CLIP encoders only.

    Cite: Esser et al.: Scaling Rectified Flow Transformers for High-Resolution Image Synthesis.
    ICML 2024
    """
    if quiet:
        disable_progress_bars()
    if check_folder is None:
        path, held = fetch(root, endpoint, with_t5=not without_t5)
    else:
        path, held = check_folder, check(check_folder)
    typer.echo(f"{path} holds {held}; use it with --scale paper --weights {path}")


if __name__ == "__main__":
    enter("sd3_weights", app)
