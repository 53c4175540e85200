"""Where the paper's data sets and the models' weights come from, and on which terms: ``sources.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to fetch.

    Attributes:
        size: of the download, in words.
        licence, home: on which terms, and whose; its home says how to cite it.
        files: path below the folder of downloads -> address; "" where only a browser gets it.
        sha256: of its only file, or the first digits; "" where its publisher states none.
        count: of a data set, the pictures that the labs find in it.
        torchvision: class that verifies the archives by their MD5 and unpacks them, if there is one.
        into: folder below that of the downloads to unpack into, where torchvision does not.
        note: what to know before.
    """

    size: str
    licence: str
    home: str
    files: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    count: int = 0
    torchvision: str = ""
    into: str = ""
    note: str = ""


TABLE = Path(__file__).with_suffix(".json").read_text("utf-8")
SOURCES = {name: Source(**facts) for name, facts in json.loads(TABLE).items()}
PICTURES = {name: source for name, source in SOURCES.items() if source.count}
