"""The paper's styles, from files: ArtBench-10, and two of SaRA's folders.

The names are those of the paper's Table II. What the paper leaves open is decided here:

* ``art_nouveau``, ``impressionism``: ArtBench-10 at 256 x 256 pixels. The official test set (1,000
  pictures a style) is held out; of the official training set a fixed 1,500 train, as many as the paper
  has. Captions are titles, read from file names such as ``leon-bakst_elisium-1906.jpg``; a picture
  whose name has none ("untitled") is called :data:`PLAIN_CAPTION`.
* ``barbie``, ``cyberpunk``: SaRA's folders, 315 and 439 pictures, with BLIP's captions as they are; a
  picture without one is left out. SaRA's own scripts write "Barbie style, " in front of each; without
  it, nothing in a prompt asks for the style. A fifth is held out, by hash. SaRA's scripts train on all
  pictures and compare with the same, which a model that repeats them does best; FID to the fifth is not
  comparable with FID to the whole.

Pictures are opened when they are asked for, whatever their mode, and turned upright.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.releases import Release, ReleasedPicture
from serial_lora_course.data.subsets import first_by_hash
from serial_lora_course.data.types import Pictures, StyleData, StyleExample

PLAIN_CAPTION = "a picture"
HELD_OUT = 0.2  # of a style without an official division
MOST_TRAINING = 1500  # pictures a style; ArtBench has 5,000
METADATA = "metadata.jsonl"


def _list_artbench(folder: Path, style: str) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(f"{part}/{style}/{path.name}", part, title_of(path.name) or PLAIN_CAPTION)
        for part in ("train", "test")
        for path in sorted((folder / part / style).glob("[!.]*.jpg"))
    ]


#: A year, perhaps with a number that tells two works of that year apart, at the end of a title.
_YEAR = re.compile(r"-(1\d{3}|20\d\d)(-\d{1,2})?$")
_COPY = re.compile(r"\(\d+\)$")  # of two files that would have the same name
_NO_TITLE = re.compile(r"(untitled|unknown|not detected|no title)?[\s\d]*")
#: A year behind one of these belongs to the title: "the exhibition of 1900".
_LEADS_TO_YEAR = {"in", "of", "for", "from", "since", "until", "to", "the", "year", "and"}


def title_of(file_name: str) -> str:
    """A work's title as its file name in ArtBench tells it; empty where it has none."""
    stem = PurePosixPath(file_name).stem
    title = _COPY.sub("", stem.partition("_")[2] or stem).replace("_", "-").strip("-")
    undated = _YEAR.sub("", title)
    if undated.rpartition("-")[2] not in _LEADS_TO_YEAR:
        title = undated
    words = " ".join(title.replace("-", " ").split())
    return "" if _NO_TITLE.fullmatch(words.lower()) else words


def _list_sara(folder: Path, style: str) -> list[ReleasedPicture]:
    """What the ``metadata.jsonl`` in the style's folder says, in the way of Hugging Face's
    imagefolder: ``{"file_name": ..., "text": ...}`` on each line.

    SaRA's README calls the folders BarbieCore and CyberPunk, its configurations Barbie and Cyberpunk;
    whatever is in front of them in the archive is the archive's business.
    """
    found = [p for p in folder.rglob(METADATA) if p.parent.name.lower().startswith(style)]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} folders of {style} with a {METADATA}")
    listed, below = [], found[0].parent.relative_to(folder)
    for row in map(json.loads, filter(str.strip, found[0].read_text("utf-8-sig").splitlines())):
        texts = row["text"]
        text = texts[0] if isinstance(texts, list) and texts else texts
        caption = " ".join((text or "").split())
        listed.append(ReleasedPicture((below / row["file_name"]).as_posix(), text=caption))
    return listed


ARTBENCH = Release(
    name="artbench",
    title="ArtBench-10",
    folder="artbench-10-imagefolder-split",
    list_pictures=_list_artbench,
)
SARA = Release(name="sara", title="SaRA's style pictures", folder="SaRA", list_pictures=_list_sara)
#: The paper's name of a style -> the release it comes from.
RELEASE_OF = {
    "art_nouveau": ARTBENCH,
    "impressionism": ARTBENCH,
    "barbie": SARA,
    "cyberpunk": SARA,
}


def load_style_files(name: str, root: Path) -> StyleData:
    """One of the paper's styles, a key of :data:`RELEASE_OF`.

    Raises:
        SerialLoRAError: data not there (says which command fetches them), or not complete.
    """
    release = RELEASE_OF[name]
    folder = root / release.folder
    rows = {row.picture_id: row for row in release.listed(root, name) if row.text}
    train, test = ([i for i in rows if rows[i].part == part] for part in ("train", "test"))
    if test:
        train, test = first_by_hash(train, MOST_TRAINING)[0], sorted(test)
    else:
        test, train = first_by_hash(list(rows), round(HELD_OUT * len(rows)))
    parts = [
        Pictures(ids, _read_example, [(folder / i, rows[i].text, i) for i in ids])
        for ids in (train, test)
    ]
    return StyleData(
        name=name,
        scale="paper",
        train=parts[0],
        test=parts[1],
        content=repr([(i, rows[i].text) for i in train + test]),
    )


def _read_example(source: tuple[Path, str, str]) -> StyleExample:
    path, caption, picture_id = source
    return StyleExample(read_picture(path, upright=True), caption, picture_id)
