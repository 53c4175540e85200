"""The paper's data sets and the models' weights: ``python data_scripts/fetch.py --help``."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import open_clip
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from torch import nn
from torchvision import datasets

from data_scripts.download import download, unpack
from data_scripts.sources import PICTURES, SOURCES
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification_files import CLASSIFICATION_RELEASES
from serial_lora_course.data.registry import RELEASES
from serial_lora_course.data.releases import data_root
from serial_lora_course.data.style_files import RELEASE_OF
from serial_lora_course.door import enter
from serial_lora_course.files import alone
from serial_lora_course.models.clip import PAPER_MODEL, load_clip, openai_file
from serial_lora_course.models.sd3 import PAPER_FOLDER, load_sd3
from serial_lora_course.models.weights import require_finite

DESCRIPTION = """\
Fetch data sets of the paper, or weights of its models, for --scale paper.

A download is held against its publisher's hash where there is one; an archive that does not unpack is
named, to be deleted and fetched anew. All goes to the folder that SERIAL_LORA_DATA names, else to your
account's. What is unpacked appears there whole; its archive is deleted then. What cannot be had says
where to put the file by hand; an unpacked folder there will do as well."""
CLIP_FILE = "open_clip_model.safetensors"  # as every repository of OpenAI's weights calls it
SD3_REPOSITORY = "stabilityai/stable-diffusion-3-medium-diffusers"
#: Of all that lies there: not the copies in another number format, not the pictures of its page.
SD3_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model"]
T5_FILES = ["text_encoder_3/*", "tokenizer_3/*"]
PATIENCE = 30  # seconds without a byte after which a connection counts as broken


def main(words: Sequence[str]) -> None:
    """Fetch what is named on a command line."""
    table = [f"{name:18} {s.size:29} {s.licence}" for name, s in SOURCES.items()]
    parser = argparse.ArgumentParser(
        prog="python data_scripts/fetch.py",
        description=DESCRIPTION,
        epilog="\n".join(["What there is, its size, its licence:", "", *table]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", choices=SOURCES, metavar="NAME")
    parser.add_argument("--password", help="of FoodSeg103's archive, as its home prints it")
    parser.add_argument(
        "--model", default=PAPER_MODEL, help=f"which CLIP, by open_clip's name ({PAPER_MODEL})"
    )
    parser.add_argument(
        "--without-t5", action="store_true", help="leave out the largest of SD3's text encoders"
    )
    asked = parser.parse_args(words)
    root = data_root()
    socket.setdefaulttimeout(PATIENCE)
    for name in asked.names:
        source = SOURCES[name]
        if source.note:
            print(source.note)
        if name in PICTURES:
            place = fetch_pictures(name, root, asked.password)
        elif name == "clip":
            place = fetch_clip(asked.model, root)
        elif name == "sd3":
            place = fetch_sd3(root, with_t5=not asked.without_t5)
        else:
            ((file, url),) = source.files.items()
            place = download(url, root / "weights" / file, source.sha256)
        print(f"{name} is ready: {place}\nLicence: {source.licence}; home: {source.home}")
        if name in CLASSIFICATION_RELEASES:
            coop = place / CLASSIFICATION_RELEASES[name].coop_file
            print(f"CoOp's own split, as in the paper, is used if you put it there: {coop}")


# --- data sets -----------------------------------------------------------------------------------


def fetch_pictures(name: str, root: Path, password: str | None = None) -> Path:
    """Bring a data set to the folder that the labs load it from; it appears there when it is whole.

    Raises:
        SerialLoRAError: it cannot be had, or is not laid out as its publisher's.
    """
    source, release = PICTURES[name], RELEASES[name]
    folder, begun = root / release.folder, root / "fetching" / name
    begun.parent.mkdir(parents=True, exist_ok=True)
    told = f"another process is fetching {name} into {root}; wait until it has ended."
    with alone(begun.with_name(f".{name}.lock"), told):
        if not folder.exists():
            _fetch_anew(name, begun, password)
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(begun / release.folder, folder)
            shutil.rmtree(begun)
    found = _count(name, root)
    if found != source.count:
        print(f"note: {name} has {found:,} pictures where its publisher has {source.count:,}.")
    return folder


def _fetch_anew(name: str, begun: Path, password: str | None) -> None:
    """Bring a data set's archives to a folder, unpack them there, and delete them."""
    source = PICTURES[name]
    _leave_only(begun, source.files)
    archives = [begun / file for file in source.files]
    for archive, url in zip(archives, source.files.values(), strict=True):
        if url:
            download(url, archive)
        elif not archive.exists():
            raise SerialLoRAError(f"{archive} is not there. {source.note}")
    if source.torchvision:
        _by_torchvision(name, begun)
    else:
        for archive in archives:
            unpack(archive, begun / source.into, password)
    _count(name, begun)
    for archive in archives:
        archive.unlink(missing_ok=True)


def _leave_only(folder: Path, files: Sequence[str]) -> None:
    """Clear away what an earlier command had unpacked when it was stopped; keep what it fetched."""
    kept = {folder / file for file in files}
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside of a folder comes first
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path not in kept:
            path.unlink()


def _by_torchvision(name: str, folder: Path) -> None:
    """Archives that lie where torchvision looks for them are verified and unpacked."""
    try:
        getattr(datasets, PICTURES[name].torchvision)(folder, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise SerialLoRAError(
            f"torchvision could not verify and unpack {name} in {folder} ({error}); run the same "
            "command again."
        ) from error


def _count(name: str, root: Path) -> int:
    """How many pictures the labs find below a root."""
    release = RELEASES[name]
    styles = [style for style, of in RELEASE_OF.items() if of is release]
    if styles:
        return sum(len(release.listed(root, style)) for style in styles)
    return len(release.listed(root))


# --- weights -------------------------------------------------------------------------------------


def fetch_clip(name: str, root: Path) -> Path:
    """Bring the safetensors file that open_clip itself would fetch for OpenAI's weights."""
    facts = open_clip.get_pretrained_cfg(name, "openai")
    if not facts:
        raise SerialLoRAError(
            f"OpenAI published no weights for {name!r}; choose {PAPER_MODEL} or another name from "
            "open_clip.list_models() that ends with -quickgelu."
        )
    path, begun = root / "weights" / openai_file(name), root / "fetching" / "clip" / name
    if not path.exists():
        with _hub_told(name):
            hf_hub_download(facts["hf_hub"].rstrip("/"), CLIP_FILE, local_dir=begun)
        _keep_if_good(
            begun,
            begun / CLIP_FILE,
            path,
            lambda: require_finite(load_clip("paper", name, begun / CLIP_FILE).model, path),
        )
    return path


def fetch_sd3(root: Path, with_t5: bool = True) -> Path:
    """Bring Stable Diffusion 3 medium, a gated model, as a diffusers folder."""
    folder, begun = root / "weights" / PAPER_FOLDER, root / "fetching" / "sd3"
    if not folder.exists():
        with _hub_told("Stable Diffusion 3 medium"):
            # Without an answer, snapshot_download would take a folder that is half full for done.
            snapshot_download(
                SD3_REPOSITORY,
                revision=HfApi().model_info(SD3_REPOSITORY).sha,
                local_dir=begun,
                allow_patterns=SD3_FILES,
                ignore_patterns=["*fp16*", *([] if with_t5 else T5_FILES)],
            )
        _keep_if_good(begun, begun, folder, lambda: _check_sd3(begun))
    elif with_t5 and not (folder / "text_encoder_3").is_dir():
        raise SerialLoRAError(
            f"{folder} was fetched without T5; move it away to fetch it with T5, or say "
            "--without-t5."
        )
    return folder


def _check_sd3(folder: Path) -> None:
    for name, part in load_sd3("paper", folder).pipeline.components.items():
        if isinstance(part, nn.Module):
            require_finite(part, folder / name)


def _keep_if_good(begun: Path, fetched: Path, place: Path, check: Callable[[], None]) -> None:
    """Load weights as the labs will; let them appear if they are good, else fetch them anew."""
    try:
        check()
    except SerialLoRAError:
        shutil.rmtree(begun)
        raise
    shutil.rmtree(begun / ".cache", ignore_errors=True)  # the hub's notes for going on
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(fetched, place)


@contextmanager
def _hub_told(what: str) -> Iterator[None]:
    """What the hub's client raises, in one sentence. It goes on where it stopped by itself."""
    try:
        yield
    except Exception as error:  # its versions differ in how they say that there is no network
        answer = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if answer in (401, 403):
            raise SerialLoRAError(
                f"The hub gives {what} to those who accepted its licence (it answers {answer}): "
                f"accept it at https://huggingface.co/{SD3_REPOSITORY}, log in with `hf auth "
                "login`, and run the same command again."
            ) from error
        reason = answer or getattr(error, "strerror", None) or type(error).__name__
        raise SerialLoRAError(
            f"{what} could not be fetched from the hub ({reason}); run the same command again where "
            "there is a network, and it goes on where it stopped."
        ) from error


if __name__ == "__main__":
    enter("fetch", main)
