"""The site: every link leads somewhere, nothing is fetched, Sphinx finds no fault."""

import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.browser.browser import needs_browser, open_browser
from tools import ROOT

ADDRESS = "https://course.example/serial/"  # where the site would lie


class Page(HTMLParser):
    """The anchors, links and files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.files = set(), [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given or (tag == "link" and given["rel"] != "canonical"):
            self.files.add(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built site, and what Sphinx found fault with."""
    for package in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(package, reason='the site needs pip install -e ".[site]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-c", "site", ".", folder]
    command += ["-D", f"html_baseurl={ADDRESS}"]
    return folder, subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def read(built):
    """Path of each page in the site to what is in it."""
    found = (path for path in built[0].rglob("*.html") if "_static" not in path.parts)
    return {path.relative_to(built[0]).as_posix(): Page(path.read_text("utf-8")) for path in found}


def test_sphinx_finds_no_fault(built):
    assert (built[1].returncode, built[1].stderr) == (0, "")


def test_links_lead_somewhere_and_nothing_is_fetched(built, read):
    for name, page in read.items():
        for file in page.files:
            assert not urlsplit(file).netloc, f"{name} fetches {file}"
        for link in {*page.links, *(file for file in page.files if not file.startswith("data:"))}:
            target = urlsplit(urljoin(f"/{name}", link))
            if urlsplit(link).scheme:
                continue
            path = unquote(target.path).lstrip("/")
            assert (built[0] / path).is_file(), f"{name} links to {link}"
            if target.fragment and path in read:
                assert unquote(target.fragment) in read[path].anchors, f"{name} links to {link}"
        assert not [link for link in page.links if link.endswith(".ipynb")], name


@pytest.mark.slow
@needs_browser
def test_nothing_on_any_page_shuts_somebody_out(built, read):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for name in sorted(read.keys() - {"index.html"}):
            page.goto((built[0] / name).as_uri(), wait_until="load")
            found = axe.run(page).response["violations"]
            assert not found, (name, [(each["id"], each["nodes"][0]["html"]) for each in found])


REACHED = """() => {
  const one = document.activeElement;
  window.seen ??= new Set();
  window.seen.add(one);
  const ring = getComputedStyle(one).outlineStyle !== "none";
  return [one === document.body, ring, one.outerHTML.slice(0, 90)];
}"""
MISSED = """() => [...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility({visibilityProperty: true}) && !window.seen.has(one))
  .map((one) => one.outerHTML.slice(0, 90))"""


@needs_browser
@pytest.mark.parametrize("width", [1400, 600])
def test_the_keyboard_leads_through_a_whole_lesson(built, width):
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((built[0] / "solutions/06_sd3_style.html").as_uri(), wait_until="load")
        for hint in page.locator("article summary").all():  # folded parts open by a key
            hint.press("Enter")
        assert page.locator("article details:not([open])").count() == 0
        page.reload(wait_until="load")
        for _ in range(2000):
            page.keyboard.press("Tab")
            left, seen, shown = page.evaluate(REACHED)
            if left:
                break
            assert seen, f"nobody sees that this has the focus: {shown}"
        assert left and not page.evaluate(MISSED)
        if width < 1000:  # the list of all pages opens by a key
            page.get_by_role("button", name="site navigation").press("Enter")
            assert page.get_by_role("link", name="00 · Start here").is_visible()


@needs_browser
def test_on_a_phone_pages_fit_and_lesson_06s_slider_moves(built, read):
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        faults = []
        page.on("pageerror", lambda error: faults.append(error))
        for name in read.keys() - {"index.html"}:  # that one leads to the first page
            page.goto((built[0] / name).as_uri(), wait_until="load")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.goto((built[0] / "README.html").as_uri())
        page.wait_for_function("document.querySelector('.first output').value === '1'")  # it plays
        page.goto((built[0] / "solutions/06_sd3_style.html").as_uri())
        strip = page.locator("[data-settings] img").first
        before = strip.bounding_box()["x"]
        page.locator("[data-settings] input[type=range]").press("End")
        assert strip.bounding_box()["x"] < before
        assert not faults
