"""What Sphinx is taught for the site: formulas without a script, and links out of the pages."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.application import Sphinx

from tools import ROOT
from tools.addresses import project_address, source

NOTEBOOK = re.compile(r"notebooks/(\d\d_\w+)\.ipynb")


def show_formula(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers draw by themselves and screen readers read."""
    block = isinstance(node, nodes.math_block)
    markup = convert(node.astext(), display="block" if block else "inline")
    writer.body.append(f'<div class="math">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def link_out(app: Sphinx, page: nodes.document) -> None:
    """Lead links to learners' notebooks to the lessons' pages, and links to what else lies in the
    checkout to where it is shown in public; where nothing is, only their words stay."""
    for link in list(page.findall(addnodes.pending_xref)):
        folder = posixpath.dirname(link["refdoc"])
        path = posixpath.normpath(posixpath.join(folder, link["reftarget"]))
        if link["refdomain"]:
            continue  # to a page
        if lesson := NOTEBOOK.fullmatch(path):
            link["refdomain"], link["reftargetid"] = "doc", None
            link["reftarget"] = f"solutions/{lesson[1]}"
        elif (ROOT / path).exists():
            words = [child.deepcopy() for child in link.children]
            if address := project_address():
                words = [nodes.reference("", "", *words, refuri=source(address, path))]
            link.replace_self(words)


def give_levels(app: Sphinx, name: str, template: str, context: dict, page: Any) -> None:
    """Say which level the headings in the list of pages have, for whoever hears them."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (show_formula, None), (show_formula, None))
    app.connect("doctree-read", link_out)
    app.connect("html-page-context", give_levels, priority=900)  # after the theme's own
    return {"parallel_read_safe": True}
