"""The paper's styles, from files: ArtBench-10, and two of SaRA's folders.

    data = load_style_files("art_nouveau")
    data.train[0].caption                       # a title: "algoma in november", say

The names are those of the paper's Table II. What the paper leaves open is decided here:

=================  ===============================================================================
``art_nouveau``,   ArtBench-10 at 256 x 256 pixels. The official test set (1,000 pictures a style)
``impressionism``  is held out. Of the official training set (5,000) a fixed 1,500 train, as many
                   as the paper has; it does not say which it took. Captions are titles.
``barbie``,        SaRA's folders, 315 and 439 pictures, captioned by BLIP. There is no official
``cyberpunk``      division: a fifth is held out, by hash. SaRA's own scripts train on all of them
                   and compare with the same pictures, and the paper does not say that it does
                   otherwise; but then a model that repeats its training pictures measures best.
                   FID to the fifth that was held out is not comparable with FID to the whole.
=================  ===============================================================================

**Titles.** ArtBench's list has none; they are read from the file names, which go
``leon-bakst_elisium-1906.jpg``. The artist and the year of the work are taken off. A picture whose
name has no title ("untitled") is called :data:`PLAIN_CAPTION`, and the description says how many
are.

**BLIP's captions** are taken as they are. SaRA's own scripts write "Barbie style, " or "Cyberpunk
style, " in front of each; without it, nothing in a prompt asks for the style. A picture without a
caption is left out, and the description says so.

Pictures are opened when they are asked for, whatever their mode, and turned upright.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification import SPLIT_SEED, read_picture
from serial_lora_course.data.download import data_root
from serial_lora_course.data.fewshot import hash_order
from serial_lora_course.data.styles import StyleData, StyleExample

PLAIN_CAPTION = "a picture"
HELD_OUT = 0.2  # of a style without an official division
ARTBENCH_LIST = "ArtBench-10.csv"
ARTBENCH_COLUMNS = ("name", "artist", "label", "split")  # those that are read
ARTBENCH_TRAINING = 1500  # pictures a style, of the official 5,000
METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class CaptionedFile:
    """One picture of a release.

    Attributes:
        picture_id: the picture's path below the release's folder.
        caption: what is to be seen in it; empty where nobody says.
        part: ``"train"`` or ``"test"`` where the release is divided, else ``None``.
    """

    picture_id: str
    caption: str
    part: str | None = None


@dataclass(frozen=True)
class Release:
    """What a publisher offers in one piece, from which the paper takes one or several styles.

    Attributes:
        title: for people.
        folder: its folder below the data root, laid out as its publisher does.
        list_files: that folder and a style -> all pictures of the style.
        captions: in words, what the captions are.
        attribution: whose pictures they are.
        split: in words, what is train and what is test.
        most_training: a style trains on no more pictures than this.
    """

    title: str
    folder: str
    list_files: Callable[[Path, str], list[CaptionedFile]]
    captions: str
    attribution: str
    split: str
    most_training: int | None = None


# --- the two releases ----------------------------------------------------------------------------


def _list_artbench(folder: Path, style: str) -> list[CaptionedFile]:
    """What ``ArtBench-10.csv`` says, a line for each picture."""
    path = folder / ARTBENCH_LIST
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            lacking = [name for name in ARTBENCH_COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"it has no column {lacking[0]!r}")
            rows = [row for row in reader if row["label"] == style]
    except (ValueError, csv.Error) as error:  # ValueError: also letters that are not UTF-8
        raise SerialLoRAError(
            f"{path} is not ArtBench's list of pictures ({error}); restore it from its official "
            "address."
        ) from error
    return [
        CaptionedFile(
            picture_id=f"{row['split']}/{style}/{row['name']}",
            caption=title_of(row["name"], row["artist"]) or PLAIN_CAPTION,
            part=row["split"],
        )
        for row in rows
    ]


#: A year, perhaps with a number that tells two works of that year apart, at the end of a title.
_YEAR = re.compile(r"-(1\d{3}|20\d\d)(-\d{1,2})?$")
_COPY = re.compile(r"\(\d+\)$")  # of two files that would have the same name
_NO_TITLE = re.compile(r"(untitled|unknown|not detected|no title)?[\s\d]*")
#: A year behind one of these belongs to the title: "the exhibition of 1900".
_LEADS_TO_YEAR = {"in", "of", "for", "from", "since", "until", "to", "the", "year", "and"}


def title_of(file_name: str, artist: str) -> str:
    """A work's title as its file name in ArtBench tells it; empty where it has none.

    Args:
        file_name: such as ``leon-bakst_elisium-1906.jpg``.
        artist: as the list writes the artist, such as ``leon-bakst``.
    """
    stem = PurePosixPath(file_name).stem.removeprefix(artist)
    title = _COPY.sub("", stem.replace("_", "-").strip("-"))
    undated = _YEAR.sub("", title)
    if undated.rpartition("-")[2] not in _LEADS_TO_YEAR:
        title = undated
    words = " ".join(title.replace("-", " ").split())
    return "" if _NO_TITLE.fullmatch(words.lower()) else words


def _list_sara(folder: Path, style: str) -> list[CaptionedFile]:
    """What the ``metadata.jsonl`` in the style's folder says, in the way of Hugging Face's
    imagefolder: ``{"file_name": ..., "text": ...}`` on each line."""
    path = _find_metadata(folder, style)
    below = path.parent.relative_to(folder)
    listed = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
            first = text[0] if isinstance(text, list) and text else text
            caption = " ".join((first or "").split())
            listed.append(CaptionedFile((below / name).as_posix(), caption))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SerialLoRAError(
                f"line {number} of {path} does not give a file_name and a text ({error!r}); "
                "restore the file from the official archive."
            ) from error
    return listed


def _find_metadata(folder: Path, style: str) -> Path:
    """SaRA's README calls the folders BarbieCore and CyberPunk, its configurations Barbie and
    Cyberpunk; whatever is in front of them in the archive is the archive's business."""
    found = [
        path
        for path in sorted(folder.rglob(METADATA))
        if path.parent.name.lower().startswith(style)
    ]
    if len(found) != 1:
        raise SerialLoRAError(
            f"{folder} should have one folder with a name that begins with {style.capitalize()} "
            f"and a {METADATA} in it, and has {len(found)}; put the folder there as SaRA's "
            "archive has it."
        )
    return found[0]


#: Name of the script that prepares it -> the release.
STYLE_RELEASES: dict[str, Release] = {
    "artbench": Release(
        title="ArtBench-10",
        folder="artbench-10-imagefolder-split",
        list_files=_list_artbench,
        captions="captions are the titles of the works",
        attribution="ArtBench-10, Liao, Li, Liu and Keutzer 2022; pictures of works of art from "
        "WikiArt and others, under fair use",
        split=f"the official test set; {ARTBENCH_TRAINING:,} of the official training set by "
        f"hashed order, seed {SPLIT_SEED}, as the paper does not say which it took",
        most_training=ARTBENCH_TRAINING,
    ),
    "sara": Release(
        title="SaRA's style pictures",
        folder="SaRA",
        list_files=_list_sara,
        captions="captions were written by BLIP",
        attribution="collected by Hu et al. for SaRA, 2025; no licence is stated",
        split=f"{HELD_OUT:.0%} held out by hashed order, seed {SPLIT_SEED}, as there is no "
        "official division",
    ),
}


def list_files(release_name: str, style: str, root: Path) -> list[CaptionedFile]:
    """All pictures of a style of a release below the data root.

    Raises:
        SerialLoRAError: the folder is not there, or not complete.
    """
    release = STYLE_RELEASES[release_name]
    folder = root / release.folder
    command = f"`python data_scripts/{release_name}.py --root {root}`"
    if not folder.is_dir():
        raise SerialLoRAError(f"{release.title} is not at {folder}; fetch it with {command}.")
    try:
        listed = release.list_files(folder, style)
    except OSError as error:
        raise SerialLoRAError(
            f"{folder} is not complete ({error}); move it away and run {command} again."
        ) from error
    missing = [file.picture_id for file in listed if not _is_inside(folder, file.picture_id)]
    if missing:
        raise SerialLoRAError(
            f"{len(missing)} pictures of {release.title} are missing, {folder / missing[0]} the "
            f"first; restore them, or move {folder} away and run {command} again."
        )
    return listed


def _is_inside(folder: Path, picture_id: str) -> bool:
    """Whether it is a file, and one that no list can have outside the folder."""
    outside = PurePosixPath(picture_id).is_absolute() or ".." in PurePosixPath(picture_id).parts
    return not outside and (folder / picture_id).is_file()


def count_files(release_name: str, root: Path) -> tuple[int, int]:
    """How many pictures a release has in the paper's styles, and in how many of these.

    Raises:
        SerialLoRAError: the folder is not there, or not complete.
    """
    listed = {
        name: list_files(release_name, name, root)
        for name, style in PAPER_STYLES.items()
        if style.release == release_name
    }
    return sum(map(len, listed.values())), sum(map(bool, listed.values()))


# --- the paper's styles --------------------------------------------------------------------------


@dataclass(frozen=True)
class PaperStyle:
    """One of the paper's styles: the release it comes from, and in words what there is to see."""

    release: str
    description: str


#: The names of the paper's Table II.
PAPER_STYLES: dict[str, PaperStyle] = {
    "art_nouveau": PaperStyle("artbench", "works of Art Nouveau (ArtBench-10)"),
    "impressionism": PaperStyle("artbench", "works of Impressionism (ArtBench-10)"),
    "barbie": PaperStyle("sara", "the pink world of a doll (SaRA)"),
    "cyberpunk": PaperStyle("sara", "neon cities of a dark future (SaRA)"),
}


def load_style_files(name: str, root: str | os.PathLike[str] | None = None) -> StyleData:
    """One of the paper's styles.

    Args:
        name: a key of :data:`PAPER_STYLES`.
        root: folder of the downloaded data; see :func:`serial_lora_course.data.download.data_root`.

    Raises:
        SerialLoRAError: unknown name; data not there (says which command fetches them), or not
            complete.
    """
    if name not in PAPER_STYLES:
        raise SerialLoRAError(
            f"there is no paper style {name!r}; choose one of {', '.join(PAPER_STYLES)}."
        )
    style, root = PAPER_STYLES[name], data_root(root)
    release = STYLE_RELEASES[style.release]
    folder = root / release.folder
    listed = list_files(style.release, name, root)
    captioned = [file for file in listed if file.caption]
    train, test = _divide(captioned, release.most_training)
    plain = sum(file.caption == PLAIN_CAPTION for file in (*train, *test))
    description = f"{style.description}; {release.captions}"
    if plain:
        description += f"; works without a title ({plain}) are called {PLAIN_CAPTION!r}"
    if len(captioned) < len(listed):
        description += f"; pictures without one ({len(listed) - len(captioned)}) are left out"
    return StyleData(
        name=name,
        scale="paper",
        train=CaptionedPictureFiles(folder, train),
        test=CaptionedPictureFiles(folder, test),
        description=description,
        attribution=release.attribution,
        split=release.split,
        content=repr([(file.picture_id, file.caption) for file in (*train, *test)]),
        folder=folder,
    )


def _divide(
    files: Sequence[CaptionedFile], most_training: int | None
) -> tuple[list[CaptionedFile], list[CaptionedFile]]:
    """Train and test, by name: as the release is divided, else a share held out by hash."""
    order = hash_order([file.picture_id for file in files], SPLIT_SEED, "split")
    shuffled = [files[position] for position in order]
    train, test = ([f for f in shuffled if f.part == part] for part in ("train", "test"))
    if not train and not test:
        held_out = round(HELD_OUT * len(shuffled))
        train, test = shuffled[held_out:], shuffled[:held_out]
    by_name = attrgetter("picture_id")
    return sorted(train[:most_training], key=by_name), sorted(test, key=by_name)


class CaptionedPictureFiles:
    """Picture files with captions; each is opened when it is asked for.

    Args:
        folder: what the files' paths are relative to.
        files: the pictures, each with a caption.
    """

    def __init__(self, folder: Path, files: Sequence[CaptionedFile]) -> None:
        self.folder, self.files = folder, list(files)
        self.picture_ids = [file.picture_id for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> StyleExample:
        file = self.files[index]
        picture = read_picture(self.folder / file.picture_id, upright=True)
        return StyleExample(picture, file.caption, file.picture_id)
