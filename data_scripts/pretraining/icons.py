"""Drawings by many designers for pretraining: the icon sets of Iconify, drawn by resvg.

One npm package holds them all as SVG bodies by name. Sets of emoji are read by Unicode's names; of
the others (``icon_sets.tsv``) an icon's own name is its caption. Only pretraining uses these: no
picture of them is shipped, and OpenMoji is not among them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from serial_lora_course.data.emoji import Concept, EmojiSet, emoji_concepts, fit
from serial_lora_course.data.releases import data_root

ICONIFY = "@iconify/json@2.2.535"
SETS = Path(__file__).with_name("icon_sets.tsv")
# our name of a set of emoji -> (Iconify's name, licence)
ICON_STYLES = {
    "noto": ("noto", "Apache-2.0"),
    "noto-v1": ("noto-v1", "Apache-2.0"),
    "fluent": ("fluent-emoji", "MIT"),
    "fluent-flat": ("fluent-emoji-flat", "MIT"),
    "fluent-contrast": ("fluent-emoji-high-contrast", "MIT"),
    "emojione": ("emojione", "CC-BY-4.0"),
    "emojione-mono": ("emojione-monotone", "CC-BY-4.0"),
    "emojione-v1": ("emojione-v1", "CC-BY-SA-4.0"),
    "fxemoji": ("fxemoji", "Apache-2.0"),
}
DRAWN_AT = 64  # pixels
MOST_OF_A_SET = 2  # drawings of one name in one set: filled and outlined, say
MOST_OF_A_NAME = 8  # drawings of one name; a camera is in 71 sets
LEAST_OFTEN = 4  # that a word of a name must occur, so that its caption can be learned
# Words of names that tell how an icon is drawn, and not what.
MANNERS = frozenset(
    "outline outlined filled fill solid bold duotone linear broken light thin regular rounded round "
    "sharp twotone two tone line alt duo color colored remix stroke stroked flat dashed logo logos "
    "variant ios md sp o".split()
)


class Icons(NamedTuple):
    """Drawings with the names that their designers gave them."""

    pictures: np.ndarray  # uint8 (N, size, size, 4), red green blue alpha, not premultiplied
    names: tuple[str, ...]  # of what each shows


def icon_sets() -> list[dict[str, str]]:
    """The rows of the table: set, name, by, licence."""
    lines = [line for line in SETS.read_text("utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


def load_icons(style: str, size: int = 64) -> EmojiSet:
    """All pictures of one set of emoji that Unicode's list names; drawn once, then cached."""
    cache = data_root() / "icons" / f"{style}-{size}.npz"
    if not cache.exists():
        _draw_emoji(style, size, cache)
    stored = np.load(cache, allow_pickle=False)
    by_codepoints = {concept.codepoints: concept for concept in emoji_concepts()}
    names = tuple(stored["codepoints"].tolist())
    pictures = dict(zip(names, stored["pictures"], strict=True))
    concepts = tuple(by_codepoints[name] for name in names)
    return EmojiSet(style, concepts, names, pictures.__getitem__)


def load_named_icons(size: int = DRAWN_AT) -> Icons:
    """The drawings of all sets of the table, at most 64 pixels wide; drawn once, then cached."""
    cache = data_root() / "icons" / f"named-{DRAWN_AT}.npz"
    if not cache.exists():
        _draw_named(cache)
    stored = np.load(cache, allow_pickle=False)
    pictures = stored["pictures"]
    if size < DRAWN_AT:
        pictures = np.stack([_smaller(picture, size) for picture in pictures])
    return Icons(pictures, tuple(stored["names"].tolist()))


def _smaller(picture: np.ndarray, size: int) -> np.ndarray:
    premultiplied = Image.fromarray(picture, "RGBA").convert("RGBa")
    return np.asarray(premultiplied.resize((size, size), Image.Resampling.BOX).convert("RGBA"))


@lru_cache
def npm_package(package: str) -> Path:
    """The folder of an npm package's files, fetched and unpacked on the first call."""
    folder = data_root() / "icons" / re.sub("[^a-z0-9.]+", "-", package.strip("@"))
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder.parent), package]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        unfinished = folder.with_name(f"{folder.name}.part")
        with tarfile.open(folder.parent / done.stdout.strip().splitlines()[-1]) as tar:
            tar.extractall(unfinished, filter="data")
        unfinished.rename(folder)
    return folder / "package"


@lru_cache(maxsize=4)
def _read(name: str) -> dict:
    return json.loads((npm_package(ICONIFY) / "json" / f"{name}.json").read_text("utf-8"))


def _draw_emoji(style: str, size: int, cache: Path) -> None:
    icons = _read(ICON_STYLES[style][0])
    by_name = {_squeeze(name): icon for name, icon in icons["icons"].items()}
    drawn = {}
    for concept in tqdm(emoji_concepts(), f"drawing {style}"):
        body = next((by_name[name] for name in _names(concept) if name in by_name), None)
        picture = None if body is None else _draw(body, icons)
        if picture is not None and picture.getbbox() is not None:
            drawn[concept.codepoints] = np.asarray(fit(picture, size))
    np.savez(cache, codepoints=np.array(list(drawn)), pictures=np.stack(list(drawn.values())))


def _draw_named(cache: Path) -> None:
    pictures, names = [], []
    by_set = defaultdict(list)
    for caption, found in _chosen().items():
        for name, icon in found:
            by_set[name].append((caption, icon))
    for name, found in tqdm(by_set.items(), "drawing icon sets"):
        icons = _read(name)
        for caption, icon in found:
            picture = _draw(icons["icons"][icon], icons, pixels=96)
            if picture is not None and picture.getbbox() is not None:
                pictures.append(np.asarray(fit(picture, DRAWN_AT)))
                names.append(caption)
    np.savez(cache, pictures=np.stack(pictures), names=np.array(names))


def _chosen() -> dict[str, list[tuple[str, str]]]:
    """Caption -> the icons that are drawn for it, each as (set, icon)."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in icon_sets():
        for icon, data in _read(row["set"])["icons"].items():
            if not data.get("hidden"):
                groups[caption_of(icon)][row["set"]].append(icon)
    seen_in: Counter[str] = Counter()
    for caption, found in groups.items():
        seen_in.update({word: len(found) for word in set(caption.split())})

    def lottery(pair: tuple[str, str]) -> str:
        return hashlib.sha256(":".join(pair).encode()).hexdigest()

    chosen = {}
    for caption, found in groups.items():
        if all(seen_in[word] >= LEAST_OFTEN for word in caption.split()):
            each = [sorted((name, icon) for icon in icons) for name, icons in found.items()]
            pairs = [pair for icons in each for pair in sorted(icons, key=lottery)[:MOST_OF_A_SET]]
            chosen[caption] = sorted(pairs, key=lottery)[:MOST_OF_A_NAME]
    return chosen


def caption_of(icon: str) -> str:
    """What an icon shows, by its name: "rabbit-face-2-outline" gives "rabbit face"."""
    words = [re.sub(r"\d+(px)?$", "", word) for word in re.split("[-_]+", icon.lower())]
    words = list(dict.fromkeys(word for word in words if word and word not in MANNERS))
    return " ".join(words[:6]) or icon.lower()


@lru_cache
def _names_by_codepoints() -> dict[str, str]:
    """Code points to icon names. Only some sets carry this table, but all follow its names."""
    return _read("noto")["chars"]


def _names(concept: Concept) -> list[str]:
    """What an icon of a concept may be called: Iconify's name of it, or Unicode's."""
    code, names = concept.codepoints.lower(), _names_by_codepoints()
    wanted = names.get(code), names.get(code.replace("-fe0f", "")), concept.name
    return [_squeeze(name) for name in wanted if name is not None]


def _squeeze(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _draw(icon: dict, icons: dict, pixels: int = 144) -> Image.Image | None:
    import resvg_py  # only pretraining needs it: pip install -e ".[pretrain]"

    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = " ".join(str(icon.get(k, icons.get(k, value))) for k, value in defaults.items())
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{pixels}" height="{pixels}" color="#000">{icon["body"]}</svg>'
    )
    try:
        data = resvg_py.svg_to_bytes(svg_string=svg)
    except ValueError:  # a few bodies are not what SVG 1.1 allows
        return None
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")
