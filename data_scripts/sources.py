"""Where the paper's data sets and the models' weights come from, and on which terms: ``sources.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to fetch.

    ``files`` are path below the folder of downloads -> address, "" where only a browser gets it.
    """

    size: str  # of the download, in words
    licence: str
    home: str  # which says how to cite it
    files: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""  # of the only file, or its first digits; "" where its publisher states none
    count: int = 0  # of a data set, the pictures that the labs find in it
    torchvision: str = ""  # the class that verifies the archives by their MD5 and unpacks them
    into: str = ""  # else the folder below that of the downloads to unpack into
    note: str = ""  # what to know before


TABLE = Path(__file__).with_suffix(".json").read_text("utf-8")
SOURCES = {name: Source(**facts) for name, facts in json.loads(TABLE).items()}
PICTURES = {name: source for name, source in SOURCES.items() if source.count}
