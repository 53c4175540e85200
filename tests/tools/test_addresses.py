"""Where the course can be had in public: one address, and no page that names another."""

import re

import pytest

from serial_lora.errors import SerialLoRAError
from tools import ROOT, addresses, site

ADDRESS = "https://github.com/someone/serial-lora"
SERVICES = re.compile(
    r"https?://(?:colab\.research\.google\.com|mybinder\.org|[\w.-]*github\.[a-z]+/[\w.-]+/serial[-_]lora"
    r"|[\w-]+\.github\.io)\S*",
    re.IGNORECASE,
)


def names_our_address(text: str) -> list[str]:
    """The addresses of the course, or of services that run it, which pyproject.toml does not give."""
    project = addresses.project_address().removeprefix("https://github.com/")
    return [found for found in SERVICES.findall(text) if not project or project not in found]


def write_project(folder, urls: str):
    (folder / "pyproject.toml").write_text(f'[project]\nname = "serial-lora"\n{urls}', "utf-8")
    return folder


def test_the_address_is_read_and_one_that_could_not_be_opened_is_refused(tmp_path):
    assert addresses.project_address(write_project(tmp_path, "")) == ""
    table = '[project.urls]\nRepository = "{}"\n'
    assert addresses.project_address(write_project(tmp_path, table.format(ADDRESS))) == ADDRESS
    for wrong in ("https://example.org/a/b", "github.com/a/b", ADDRESS + "/"):
        with pytest.raises(SerialLoRAError, match="OWNER/NAME"):
            addresses.project_address(write_project(tmp_path, table.format(wrong)))


def test_a_lesson_has_a_button_for_each_service_where_there_is_an_address(monkeypatch):
    assert re.findall('href="([^"]+)"', site.buttons("02_x")) == ["../notebooks/02_x.ipynb"]
    monkeypatch.setattr(site, "project_address", lambda: ADDRESS)
    links = re.findall('href="([^"]+)"', site.buttons("02_x"))
    assert links == [
        "../notebooks/02_x.ipynb",
        f"{ADDRESS}/archive/refs/heads/main.zip",
        "https://colab.research.google.com/github/someone/serial-lora/blob/main/notebooks/02_x.ipynb",
        "https://mybinder.org/v2/gh/someone/serial-lora/main?urlpath=lab/tree/notebooks/02_x.ipynb",
    ]
    assert len(names_our_address(" ".join(links))) == 3  # so the next test can fail


def test_no_page_and_no_notebook_names_an_address_that_is_not_set():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*.ipynb")]
    assert len(pages) > 30
    for path in pages:
        assert not names_our_address(path.read_text("utf-8")), path
