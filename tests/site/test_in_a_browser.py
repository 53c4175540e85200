"""The site as it is met: in a real browser, light and dark, by keyboard, on a phone."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.browser import needs_browser, open_browser

pytestmark = needs_browser
COUNTS = "solutions/02_parameter_count.html"
FIRST = ("index.html", COUNTS, "search.html")


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(pages):
    """Where the site is served."""
    handler = partial(Handler, directory=str(pages))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        yield page
        assert page.faults == []


def findings(page, address: str, names) -> list[str]:
    """What axe finds on pages that would shut somebody out, in either theme."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for name in names:
            page.goto(f"{address}/{name}")
            found += [
                f"{name}, {scheme}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
                for fault in axe.run(page).response["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
    return found


def test_the_first_pages_shut_nobody_out(page, address):
    assert findings(page, address, FIRST) == []


@pytest.mark.slow
def test_no_page_shuts_anybody_out(page, address, pages):
    names = [path.relative_to(pages).as_posix() for path in pages.rglob("*.html")]
    assert findings(page, address, sorted(names)) == []


def test_axe_finds_what_is_wrong(page, address):
    page.route("**/*", lambda route: route.fulfill(body="<img src=x>", content_type="text/html"))
    found = "".join(findings(page, address, ["index.html"]))
    assert found.count("alternative text") == 2  # once in either theme


def test_search_finds_a_word_without_a_network(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/search.html?q=Dice")
    page.locator(".search li a").first.wait_for()
    assert all(url.startswith(address) for url in asked)


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone(page, address, pages):
    page.set_viewport_size({"width": 390, "height": 800})
    for path in sorted(pages.rglob("*.html")):
        name = path.relative_to(pages).as_posix()
        page.goto(f"{address}/{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
