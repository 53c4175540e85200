"""The paper's styles, from files: ArtBench-10, and two of SaRA's folders.

    data = load_style_files("art_nouveau", data_root())
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

**Size.** ArtBench's files, enlarged to 512 or 1024 pixels, teach blur. Where
``data_scripts/fetch.py artbench_originals`` has brought a work at its own size, that is read in its place,
and the description says how many are.

Pictures are opened when they are asked for, whatever their mode, and turned upright.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.releases import Release, ReleasedPicture
from serial_lora_course.data.splits import SPLIT_SEED
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.data.types import Pictures, StyleData, StyleExample

PLAIN_CAPTION = "a picture"
HELD_OUT = 0.2  # of a style without an official division
ARTBENCH_LIST = "ArtBench-10.csv"
ARTBENCH_COLUMNS = ("name", "artist", "label", "split")  # those that are read
ARTBENCH_TRAINING = 1500  # pictures a style, of the official 5,000
METADATA = "metadata.jsonl"


@dataclass(frozen=True, kw_only=True)
class StyleRelease(Release):
    """What a publisher offers in one piece, from which the paper takes one or several styles.

    Attributes:
        captions: in words, what the captions are.
        styles: the paper's name of each style (Table II) -> in words, what there is to see.
        most_training: a style trains on no more pictures than this.
        larger: folder below the data root with some of its pictures, under the same names, at a
            larger size.
    """

    captions: str
    styles: dict[str, str]
    most_training: int | None = None
    larger: str = ""


# --- the two releases ----------------------------------------------------------------------------


def _list_artbench(folder: Path, style: str) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(
            _artbench_id(row),
            row["split"],
            title_of(row["name"], row["artist"]) or PLAIN_CAPTION,
        )
        for row in _artbench_rows(folder)
        if row["label"] == style
    ]


def _artbench_rows(folder: Path) -> list[dict[str, str]]:
    """What ``ArtBench-10.csv`` says, a row for each picture."""
    path = folder / ARTBENCH_LIST
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if lacking := [n for n in ARTBENCH_COLUMNS if n not in (reader.fieldnames or ())]:
                raise ValueError(f"it has no column {lacking[0]!r}")
            return list(reader)
    except (ValueError, csv.Error) as error:  # ValueError: also letters that are not UTF-8
        raise SerialLoRAError(
            f"{path} is not ArtBench's list of pictures ({error}); restore it from its official "
            "address."
        ) from error


def artbench_addresses(folder: Path) -> dict[str, str]:
    """Picture id -> where the work is to be had at its own size, as the list says."""
    return {_artbench_id(row): row.get("url") or "" for row in _artbench_rows(folder)}


def _artbench_id(row: dict[str, str]) -> str:
    return f"{row['split']}/{row['label']}/{row['name']}"


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


def _list_sara(folder: Path, style: str) -> list[ReleasedPicture]:
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
            name, texts = row["file_name"], row["text"]
            first = texts[0] if isinstance(texts, list) and texts else texts
            caption = " ".join((first or "").split())
            listed.append(ReleasedPicture((below / name).as_posix(), text=caption))
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


STYLE_RELEASES = {
    release.name: release
    for release in (
        StyleRelease(
            name="artbench",
            title="ArtBench-10",
            folder="artbench-10-imagefolder-split",
            list_pictures=_list_artbench,
            captions="captions are the titles of the works",
            styles={
                "art_nouveau": "works of Art Nouveau (ArtBench-10)",
                "impressionism": "works of Impressionism (ArtBench-10)",
            },
            attribution="ArtBench-10, Liao, Li, Liu and Keutzer 2022; pictures of works of art "
            "from WikiArt and others, under fair use",
            split=f"the official test set; {ARTBENCH_TRAINING:,} of the official training set by "
            f"hashed order, seed {SPLIT_SEED}, as the paper does not say which it took",
            most_training=ARTBENCH_TRAINING,
            larger="artbench-10-originals",
        ),
        StyleRelease(
            name="sara",
            title="SaRA's style pictures",
            folder="SaRA",
            list_pictures=_list_sara,
            captions="captions were written by BLIP",
            styles={
                "barbie": "the pink world of a doll (SaRA)",
                "cyberpunk": "neon cities of a dark future (SaRA)",
            },
            attribution="collected by Hu et al. for SaRA, 2025; no licence is stated",
            split=f"{HELD_OUT:.0%} held out by hashed order, seed {SPLIT_SEED}, as there is no "
            "official division",
        ),
    )
}
#: The paper's name of a style -> the release it comes from.
RELEASE_OF = {style: release for release in STYLE_RELEASES.values() for style in release.styles}


def load_style_files(name: str, root: Path) -> StyleData:
    """One of the paper's styles.

    Args:
        name: a key of :data:`RELEASE_OF`.
        root: folder of the downloaded data.

    Raises:
        SerialLoRAError: data not there (says which command fetches them), or not complete.
    """
    release = RELEASE_OF[name]
    folder = root / release.folder
    listed = release.listed(root, name)
    captioned = [row for row in listed if row.text]
    train, test = _divide(captioned, release.most_training)
    rows, larger = [*train, *test], root / (release.larger or release.folder)
    own_size = {row for row in rows if (larger / row.picture_id).is_file()}
    parts = [
        Pictures(
            [row.picture_id for row in part],
            _read_example,
            [((larger if row in own_size else folder) / row.picture_id, row) for row in part],
            files=_paths,
        )
        for part in (train, test)
    ]
    plain = sum(row.text == PLAIN_CAPTION for row in rows)
    description = f"{release.styles[name]}; {release.captions}"
    if plain:
        description += f"; works without a title ({plain}) are called {PLAIN_CAPTION!r}"
    if len(captioned) < len(listed):
        description += f"; pictures without one ({len(listed) - len(captioned)}) are left out"
    if release.larger and own_size:
        description += f"; {len(own_size)} of {len(rows)} at their own size"
    return StyleData(
        name=name,
        scale="paper",
        train=parts[0],
        test=parts[1],
        description=description,
        attribution=release.attribution,
        split=release.split,
        content=repr([(row.picture_id, row.text) for row in rows]),
        folder=folder,
    )


def _divide(
    listed: Sequence[ReleasedPicture], most_training: int | None
) -> tuple[list[ReleasedPicture], list[ReleasedPicture]]:
    """Train and test, by name: as the release is divided, else a share held out by hash."""
    order = hash_order([row.picture_id for row in listed], SPLIT_SEED, "split")
    shuffled = [listed[position] for position in order]
    train, test = ([row for row in shuffled if row.part == part] for part in ("train", "test"))
    if not train and not test:
        held_out = round(HELD_OUT * len(shuffled))
        train, test = shuffled[held_out:], shuffled[:held_out]
    by_name = attrgetter("picture_id")
    return sorted(train[:most_training], key=by_name), sorted(test, key=by_name)


def _read_example(file: tuple[Path, ReleasedPicture]) -> StyleExample:
    path, row = file
    return StyleExample(read_picture(path, upright=True), row.text, row.picture_id)


def _paths(file: tuple[Path, ReleasedPicture]) -> list[Path]:
    return [file[0]]
