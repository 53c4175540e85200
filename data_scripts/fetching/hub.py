"""Stable Diffusion 3 medium from the hub, whose owner gives it to those who accept its licence."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from data_scripts.fetching.disk import NO_SPACE
from serial_lora.errors import SerialLoRAError

HUB_REPOSITORY = "stabilityai/stable-diffusion-3-medium-diffusers"
#: Of all that lies there: not the copies in another number format, not the pictures of the page.
WANTED = ("model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model")
UNWANTED = ("*fp16*",)
T5 = ("text_encoder_3/*", "tokenizer_3/*")
CLOSED = (401, 403)  # no token or a wrong one; licence not accepted


def fetch_from_hub(folder: Path, endpoint: str | None = None, with_t5: bool = True) -> Path:
    """Fetch the files of SD3 medium from the hub; the folder.

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
        path = snapshot_download(
            HUB_REPOSITORY,
            revision=revision,
            local_dir=folder,
            endpoint=endpoint,
            allow_patterns=list(WANTED),
            ignore_patterns=list(unwanted),
        )
    except HfHubHTTPError as error:
        if error.response.status_code in CLOSED:
            raise SerialLoRAError(_closed(error.response.status_code)) from error
        raise SerialLoRAError(
            _unreachable(f"the hub answers {error.response.status_code}")
        ) from error
    except Exception as error:  # hub versions differ in how they say that there is no network
        if getattr(error, "errno", None) in NO_SPACE:
            raise SerialLoRAError(
                "The disk is full; free some space, and the same command goes on where it stopped."
            ) from error
        reason = getattr(error, "strerror", None) or "the hub cannot be reached"
        raise SerialLoRAError(_unreachable(reason)) from error
    return Path(path)


def _closed(status: int) -> str:
    return (
        f"The hub gives Stable Diffusion 3 medium to those who accepted its licence (it answers "
        f"{status}): accept it at {constants.ENDPOINT}/{HUB_REPOSITORY}, log in with `hf auth "
        "login`, and try again; or name a folder that you have with --weights."
    )


def _unreachable(reason: str) -> str:
    return (
        f"Stable Diffusion 3 medium could not be fetched ({reason}); fetch it where there is a "
        "network with `python -m data_scripts.sd3_weights`, then name the folder with --weights."
    )
