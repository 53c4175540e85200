"""Where the course can be had in public: ``Repository`` of ``[project.urls]`` in pyproject.toml.

Everything that needs the address asks here. Where none is set, no page and no notebook names one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from tools import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BRANCH = "main"
FORM = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")


def project_address(root: Path = ROOT) -> str:
    """The address of the public repository; empty where none is set.

    Raises:
        SerialLoRAError: it is not one from which Colab and Binder could open a notebook.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "")
    if address and not FORM.fullmatch(address):
        raise SerialLoRAError(
            f"{address} in [project.urls] of pyproject.toml cannot be opened by Colab and Binder; "
            "write https://github.com/OWNER/NAME, or nothing."
        )
    return address


def source(address: str, path: str) -> str:
    """Where a file or folder of the checkout is shown."""
    return f"{address}/blob/{BRANCH}/{path}"


def archive(address: str) -> str:
    """Where the whole folder is downloaded from."""
    return f"{address}/archive/refs/heads/{BRANCH}.zip"


def colab(address: str, notebook: str) -> str:
    """Where a notebook of the checkout is opened in Colab."""
    return source(address, notebook).replace("github.com", "colab.research.google.com/github", 1)


def binder(address: str, notebook: str) -> str:
    """Where a notebook of the checkout is opened in Binder."""
    name = FORM.fullmatch(address)[1]
    return f"https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{notebook}"
