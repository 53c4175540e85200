"""More designers' emoji for pretraining: Iconify's JSON packages, fetched with ``npm pack``.

Only the tiny backbones' pretraining uses these; no picture of them is shipped. Each package holds
SVG bodies by name; resvg draws them.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from serial_lora_course.data.emoji import Concept, EmojiSet, emoji_concepts, fit
from serial_lora_course.data.releases import data_root

# style -> (npm package and version, licence)
ICON_STYLES = {
    "noto": ("@iconify-json/noto@1.2.9", "Apache-2.0"),
    "noto-v1": ("@iconify-json/noto-v1@1.2.5", "Apache-2.0"),
    "fluent": ("@iconify-json/fluent-emoji@1.2.7", "MIT"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat@1.2.6", "MIT"),
    "fluent-contrast": ("@iconify-json/fluent-emoji-high-contrast@1.2.6", "MIT"),
    "emojione": ("@iconify-json/emojione@1.2.3", "CC-BY-4.0"),
    "emojione-mono": ("@iconify-json/emojione-monotone@1.2.1", "CC-BY-4.0"),
    "emojione-v1": ("@iconify-json/emojione-v1@1.2.3", "CC-BY-SA-4.0"),
    "fxemoji": ("@iconify-json/fxemoji@1.2.2", "Apache-2.0"),
}


def load_icons(style: str, size: int = 64) -> EmojiSet:
    """All pictures of one icon style that Unicode's list names; drawn once, then cached."""
    folder = data_root() / "icons"
    cache = folder / f"{style}-{size}.npz"
    if not cache.exists():
        _draw_all(style, size, _fetch(style, folder), cache)
    stored = np.load(cache, allow_pickle=False)
    by_codepoints = {concept.codepoints: concept for concept in emoji_concepts()}
    names = tuple(stored["codepoints"].tolist())
    pictures = dict(zip(names, stored["pictures"], strict=True))
    concepts = tuple(by_codepoints[name] for name in names)
    return EmojiSet(style, concepts, names, pictures.__getitem__)


def _fetch(style: str, folder: Path) -> Path:
    """The archive of a style's package."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), ICON_STYLES[style][0]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return folder / done.stdout.strip().splitlines()[-1]


def _draw_all(style: str, size: int, archive: Path, cache: Path) -> None:
    with tarfile.open(archive) as tar:
        icons = json.load(tar.extractfile("package/icons.json"))
    by_name = {_squeeze(name): icon for name, icon in icons["icons"].items()}
    drawn = {}
    for concept in tqdm(emoji_concepts(), f"drawing {style}"):
        body = next((by_name[name] for name in _names(concept) if name in by_name), None)
        picture = None if body is None else _draw(body, icons)
        if picture is not None and picture.getbbox() is not None:
            drawn[concept.codepoints] = np.asarray(fit(picture, size))
    np.savez(cache, codepoints=np.array(list(drawn)), pictures=np.stack(list(drawn.values())))


@lru_cache
def _names_by_codepoints() -> dict[str, str]:
    """Code points to icon names. Only some packages carry this table, but all follow its names."""
    with tarfile.open(_fetch("noto", data_root() / "icons")) as tar:
        return json.load(tar.extractfile("package/chars.json"))


def _names(concept: Concept) -> list[str]:
    """What an icon of a concept may be called: Iconify's name of it, or Unicode's."""
    code, names = concept.codepoints.lower(), _names_by_codepoints()
    wanted = names.get(code), names.get(code.replace("-fe0f", "")), concept.name
    return [_squeeze(name) for name in wanted if name is not None]


def _squeeze(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _draw(icon: dict, icons: dict, pixels: int = 144) -> Image.Image:
    import resvg_py  # only pretraining needs it: pip install -e ".[pretrain]"

    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = " ".join(str(icon.get(k, icons.get(k, value))) for k, value in defaults.items())
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{pixels}" height="{pixels}" color="#000">{icon["body"]}</svg>'
    )
    data = resvg_py.svg_to_bytes(svg_string=svg)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")
