"""The site: every link leads somewhere, nothing is fetched, and it is read on a phone and by ear."""

import re
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.browser.browser import needs_browser, open_browser

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """The anchors, links, files and pictures of a page, and the targets of its list of pages."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.files, self.pictures = set(), [], set(), []
        self.feed(text)
        tree = text.partition('class="sidebar-tree"')[2].partition("</aside>")[0]
        self.listed = re.findall(r'class="reference internal" href="([^"#]+)', tree)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append(given)
        if "src" in given or tag == "link":
            self.files.add(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def read(pages):
    """Path of each page in the site to what is in it."""
    return {
        path.relative_to(pages).as_posix(): Page(path.read_text("utf-8"))
        for path in pages.rglob("*.html")
        if "_static" not in path.parts
    }


def test_sphinx_finds_no_fault(pages):
    assert (pages / "faults.txt").read_text("utf-8") == ""


def test_the_list_names_every_page_once_and_every_lesson(read):
    listed = read["README.html"].listed
    assert len(listed) == len(set(listed))
    for source in (ROOT / "solutions").glob("*.py"):
        assert f"solutions/{source.stem}.html" in listed
    reached = {unquote(path) for path in listed} | {"README.html", "index.html", "search.html"}
    assert read.keys() == reached


def test_links_lead_somewhere_and_nothing_is_fetched(pages, read):
    for name, page in read.items():
        for file in page.files:
            assert not urlsplit(file).netloc, f"{name} fetches {file}"
        for link in {*page.links, *(file for file in page.files if not file.startswith("data:"))}:
            target = urlsplit(urljoin(f"/{name}", link))
            if urlsplit(link).scheme:
                continue
            path = unquote(target.path).lstrip("/")
            assert (pages / path).is_file(), f"{name} links to {link}"
            if target.fragment and path in read:
                assert unquote(target.fragment) in read[path].anchors, f"{name} links to {link}"
        assert not [link for link in page.links if link.endswith(".ipynb")], name


def test_the_button_leads_to_how_the_course_is_got(read):
    page = read["solutions/00_start_here.html"]
    (button,) = [link for link in page.links if link.endswith("#get-the-course")]
    assert button == "../README.html#get-the-course"


def test_every_picture_has_words(read):
    for name, page in read.items():
        assert all(picture.get("alt", "").strip() for picture in page.pictures), name


def test_formulas_are_drawn_by_the_browser(pages):
    text = (pages / "solutions" / "01_low_rank_maths.html").read_text("utf-8")
    assert text.count("<math") > 10
    assert not re.search(r"\\\\(frac|sigma|top)\b", text.split("<script")[0])


# -------------------------------------------------------------------------------- in a browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def page(pages):
    """A page of a real browser, and the address at which the site is served."""
    handler = partial(Quiet, directory=str(pages))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, open_browser() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(base_url=f"http://127.0.0.1:{server.server_port}")
        yield page
        server.shutdown()


@needs_browser
def test_two_pages_shut_nobody_out(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for name in ("README.html", "solutions/02_parameter_count.html"):
            page.goto(name)
            found = [
                f"{fault['help']}: {fault['nodes'][0]['html'][:200]}"
                for fault in axe.run(page).response["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
            assert found == [], f"{name}, {scheme}"


@needs_browser
def test_no_page_is_wider_than_a_phone(page, read):
    page.set_viewport_size({"width": 390, "height": 800})
    for name in sorted(read.keys() - {"index.html"}):
        page.goto(name, wait_until="domcontentloaded")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
