"""What learners' code shows, made safe to print: short, and without escape codes or markup."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nbformat import NotebookNode
from nbformat.v4 import new_output

LONGEST = 10_000  # characters of one text
PICTURE = re.compile(r"[A-Za-z0-9+/=\s]{1,1000000}")  # base64, and nothing that ends an attribute
FIGURE = re.compile(r'<img alt="[^"]*" src="data:image/png;base64,([^"]*)">')  # of the course's
MOST = 50  # outputs of one cell
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)", re.DOTALL)


def plain(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, without escape codes of the terminal and other control characters."""
    cut = str(text)[: 2 * longest]
    kept = "".join(c for c in _ESCAPES.sub("", cut) if c.isprintable() or c in "\n\t")
    return kept[:longest] + ("..." if max(len(kept), len(str(text)) // 2) > longest else "")


def plain_outputs(outputs: Iterable[dict]) -> list[NotebookNode]:
    """The outputs of a cell as text and PNG pictures alone; a teacher's browser runs none of it."""
    kept = []
    for output in list(outputs)[:MOST]:
        kind = output["output_type"]
        if kind == "stream":
            kept.append(new_output(kind, text=plain(output["text"])))  # warnings are no failure
        elif kind == "error":
            lines = plain("\n".join(output["traceback"])).split("\n")
            name, value = plain(output["ename"], 100), plain(output["evalue"])
            kept.append(new_output(kind, ename=name, evalue=value, traceback=lines))
        else:
            data, told = {}, output["data"]
            if text := told.get("text/markdown") or told.get("text/plain"):
                data["text/plain"] = plain(text)
            figure = FIGURE.fullmatch(str(told.get("text/html", "")))
            picture = figure[1] if figure else str(told.get("image/png", ""))
            if PICTURE.fullmatch(picture):
                data["image/png"] = picture
            kept.append(new_output("display_data", data=data))
    return kept


def one_line(text: str, longest: int = 300) -> str:
    """The beginning of a text, on one line."""
    return plain(" ".join(plain(text).split()), longest)


def no_formula(text: str) -> str:
    """A text that a spreadsheet would take for a formula, marked as text."""
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") else text
