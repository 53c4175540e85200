"""The course as a site to read: `make site`, which is Sphinx with MyST-NB, on what is in the checkout.

Nothing is run and nothing fetched: pages are the repository's own Markdown and the solved lessons.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = tomllib.loads((ROOT / "serial_lora/pyproject.toml").read_text("utf-8"))
ADDRESS = LIBRARY["project"]["urls"]["Repository"]
if "/OWNER/" in ADDRESS:  # nothing is public
    ADDRESS = ""
LESSONS = yaml.safe_load((ROOT / "serial_lora_course/assets/lessons.yaml").read_text("utf-8"))
MEASURED = json.loads((ROOT / "serial_lora_course/assets/lessons_measured.json").read_text("utf-8"))
STYLES = ROOT / "solutions/06_sd3_style.ipynb"  # its slider is the first page's
SHOWN = 4  # drawings under that slider
PICTURE = "_images/before_after.png"
DESCRIPTION = 160  # letters that a search engine shows

project = html_title = "Serial LoRA, from scratch"
language = "en"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    "[A-Z]*.md",
    "docs/*.md",
    "benchmarks/README.md",
    "classroom/README.md",
    "solutions/*.ipynb",
]
highlight_language = "none"  # of what is fenced without one: commands

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}
nb_code_prompt_show = "Show a solution"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["scrolling.js", "playing.js"]
html_favicon = "static/icon.svg"
# Where GitHub shows a repository's pages: links in messages need a whole address.
html_baseurl = re.sub(r"https://github.com/(.+?)/(.+?)/?$", r"https://\1.github.io/\2/", ADDRESS)
html_copy_source = html_show_sourcelink = html_show_copyright = html_use_index = False
html_math_renderer = "mathml"
templates_path = ["templates"]
html_additional_pages = {"index": "index.html"}  # leads to the first page
html_context = {"address": ADDRESS, "place": ADDRESS.removeprefix("https://github.com/")}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "get_the_course.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "pages.html",
        "sidebar/scroll-end.html",
    ]
}


def slider() -> str:
    """Lesson 06's slider as the solved lesson shows it, over its first drawings."""
    cells = json.loads(STYLES.read_text("utf-8"))["cells"]
    shown = [o.get("data", {}) for cell in cells for o in cell.get("outputs", ())]
    (panel,) = (p for each in shown if "data-settings" in (p := "".join(each.get("text/html", ""))))
    head, *figures = re.split("(?=<figure>)", panel)
    return head + "".join(figures[:SHOWN]) + "</div></div>" * (len(figures) > SHOWN)


def invitation(app) -> str:
    """For whom the course is, how long it takes, what one can do afterwards, and a picture that moves."""
    hours = sum(known["minutes"] for known in MEASURED.values()) / 60
    facts = {"lessons": len(LESSONS), "hours": round(hours), "start": LESSONS[0]["stem"]}
    page = app.builder.templates.render("first.html", facts | html_context | {"slider": slider()})
    return re.sub(r"\n\s*\n", "\n", page)  # for Markdown an empty line would be its end


def complete(app, name: str, text: list[str]) -> None:
    """The first page gets its invitation and the list of all, solutions are folded, and notebooks are pages."""
    if name == root_doc:
        title, promise, rest = text[0].split("\n\n", 2)
        pages = (ROOT / "site/contents.md").read_text("utf-8")
        text[0] = "\n\n".join([title, promise, invitation(app), rest + pages])
    text[0] = text[0].replace('"exercise"', '"exercise", "hide-input"')
    text[0] = re.sub(r"\]\(((?:\.\./)*)notebooks/(\d\d_\w+\.ipynb)", r"](\1solutions/\2", text[0])


def lead_links(app, page: nodes.document) -> None:
    """Links to files lead to where these are shown in public; elsewhere only their words stay."""
    for link in list(page.findall(addnodes.pending_xref)):
        folder = posixpath.dirname(link["refdoc"])
        path = posixpath.normpath(posixpath.join(folder, link["reftarget"]))
        if not link["refdomain"] and (ROOT / path).exists():  # else it leads to a page
            words = [child.deepcopy() for child in link.children]
            if ADDRESS:
                words = [nodes.reference("", "", *words, refuri=f"{ADDRESS}/blob/main/{path}")]
            link.replace_self(words)


def stack_long_tables(app, page: nodes.document) -> None:
    """Mark tables of three or more columns that end in long cells: a phone shows their cells below each other."""
    for table in page.findall(nodes.table):
        rows = [row.children for row in table.findall(nodes.row)]
        if len(rows[0]) > 2 and any(len(cells[-1].astext()) > 30 for cells in rows):
            table["classes"].append("stacked")


def describe(app, name: str, template: str, context: dict, page: nodes.document | None) -> None:
    """Tell search engines and messages what a page is about: its first paragraph, and a picture."""
    page, title = page or app.env.get_doctree(root_doc), app.env.titles.get(name)
    words = " ".join(next(page.findall(nodes.paragraph)).astext().split())
    if len(words) > DESCRIPTION:
        words = words[:DESCRIPTION].rpartition(" ")[0] + " ..."
    said = {
        "og:title": title.astext() if title else project,
        "og:description": words,
        "og:type": "website",
    }
    if html_baseurl := app.config.html_baseurl:
        said |= {"og:image": html_baseurl + PICTURE, "twitter:card": "summary_large_image"}
    tags = [f'<meta property="{key}" content="{escape(value)}">' for key, value in said.items()]
    tags.append(f'<meta name="description" content="{escape(words)}">')
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


def empty_heads(app, name: str, template: str, context: dict, page: nodes.document | None) -> None:
    """A head cell without words heads nothing, so it becomes a plain one."""
    empty = r"<th\b([^>]*)>(?:\s|&nbsp;|<p></p>)*</th>"
    context["body"] = re.sub(empty, r"<td\1></td>", context.get("body") or "")


def show_formula(writer, node) -> None:
    """Write a formula as MathML, which browsers draw by themselves and screen readers read."""
    block = isinstance(node, nodes.math_block)
    formula = node.astext().replace("{aligned}", "{align*}")  # the converter knows only this name
    markup = convert(formula, display="block" if block else "inline")
    if "<mi>&</mi>" in markup or "<mi>\\" in markup:
        logging.getLogger(__name__).warning("not understood: %s", formula, location=node)
    writer.body.append(f'<div class="math">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def setup(app) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (show_formula, None), (show_formula, None))
    app.connect("source-read", complete)
    app.connect("doctree-read", lead_links)
    app.connect("doctree-read", stack_long_tables)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", empty_heads)
