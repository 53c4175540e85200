"""The site as files: every page is there, every link leads somewhere, nothing is fetched."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.lessons import LESSONS
from tests.tools.test_addresses import names_our_address
from tools import ROOT, site

pytestmark = pytest.mark.filterwarnings("ignore")  # of what Sphinx's next version will drop


class Page(HTMLParser):
    """The anchors, links, files and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.files, self.pictures = set(), set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag == "img":
            self.pictures.append(given)
        if "src" in given or tag == "link":
            self.files.add(given.get("src") or given["href"])


@pytest.fixture(scope="session")
def read(pages):
    """Path of each page in the site to what is in it."""
    return {
        path.relative_to(pages).as_posix(): Page(path.read_text("utf-8"))
        for path in pages.rglob("*.html")
        if "_static" not in path.parts
    }


def test_every_lesson_and_every_page_of_the_checkout_is_in_it(read):
    wanted = {f"solutions/{lesson.stem}.html" for lesson in LESSONS} | {"index.html", "search.html"}
    for folder in (".", "docs", "benchmarks"):
        for path in (ROOT / folder).glob("*.md"):
            wanted.add(path.relative_to(ROOT).with_suffix(".html").as_posix())
    assert wanted - read.keys() == {"README.html", "AGENTS.html"}


def test_links_lead_somewhere_and_nothing_is_fetched(pages, read):
    for name, page in read.items():
        for file in page.files:
            assert not urlsplit(file).netloc, f"{name} fetches {file}"
        for link in page.links | {file for file in page.files if not file.startswith("data:")}:
            target = urlsplit(urljoin(f"/{name}", link))
            if urlsplit(link).scheme:
                continue
            path = unquote(target.path).lstrip("/")
            assert (pages / path).is_file(), f"{name} links to {link}"
            if target.fragment and path in read:
                assert unquote(target.fragment) in read[path].anchors, f"{name} links to {link}"


def test_every_picture_has_words_and_every_lesson_its_notebook(pages, read):
    for name, page in read.items():
        assert all(picture.get("alt", "").strip() for picture in page.pictures), name
    shown = sum(len(page.pictures) for name, page in read.items() if name.startswith("solutions"))
    notebooks = [nbformat.read(path, 4) for path in (ROOT / "solutions").glob("*.ipynb")]
    outputs = [
        output.get("data", {})
        for notebook in notebooks
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    kept = sum(("image/png" in data) + data.get("text/html", "").count("<img ") for data in outputs)
    assert shown == kept
    for lesson in LESSONS:
        assert f"../notebooks/{lesson.stem}.ipynb" in read[f"solutions/{lesson.stem}.html"].links


def test_no_page_names_an_address_that_is_not_set(pages, read):
    for name in read:
        assert not names_our_address((pages / name).read_text("utf-8")), name


def test_formulas_are_drawn_by_the_browser(pages):
    text = (pages / "solutions" / "01_low_rank_maths.html").read_text("utf-8")
    source = (ROOT / "solutions" / "01_low_rank_maths.py").read_text("utf-8")
    formulas = re.findall(r"\$\$?[^$]+\$\$?", source)
    assert text.count("<math") == len(formulas) > 10
    assert not re.search(r"\\\\(frac|sigma|top)\b", text.split("<script")[0])


def test_a_link_that_leads_nowhere_and_a_lesson_not_built_are_said(tmp_path):
    pytest.importorskip("myst_nb", reason='the site needs pip install -e ".[site]"')
    root = tmp_path / "checkout"
    for lesson in LESSONS:
        notebook = new_notebook(cells=[new_markdown_cell(f"# {lesson.title}")])
        (root / "solutions").mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, root / "solutions" / f"{lesson.stem}.ipynb")
    (root / "notebooks").mkdir()
    (root / "README.md").write_text("# A course\n\n[where?](docs/nowhere.md)\n", "utf-8")
    for words in ("docs/nowhere.md", f"{LESSONS[-1].stem}.ipynb is missing"):
        with pytest.raises(SerialLoRAError, match=words):
            site.build(root, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        (root / "solutions" / f"{LESSONS[-1].stem}.ipynb").unlink(missing_ok=True)
