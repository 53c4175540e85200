"""The course as a site to read: `make site`, which is Sphinx with MyST-NB, on what is in the checkout.

Nothing is run and nothing fetched: pages are the repository's own Markdown and the solved lessons.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = tomllib.loads((ROOT / "serial_lora/pyproject.toml").read_text("utf-8"))
ADDRESS = LIBRARY["project"]["urls"]["Repository"]
if "/OWNER/" in ADDRESS:  # nothing is public
    ADDRESS = ""

project = html_title = "Serial LoRA, from scratch"
language = "en"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    "[B-Z]*.md",
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
html_js_files = ["scrolling.js"]
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


def complete(app, name: str, text: list[str]) -> None:
    """The first page gets the list of all, solutions are folded, and notebooks are their pages."""
    if name == root_doc:
        text[0] += (ROOT / "site/contents.md").read_text("utf-8")
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
