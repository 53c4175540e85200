"""The course as a site to read before installing anything: ``python -m tools.site``.

::

    python -m tools.site                 write build/site, and say where its first page is
    python -m tools.site --out FOLDER    write it there

Made by Sphinx with myst-nb from the executed notebooks and the repository's own pages. Nothing is run
and nothing fetched, and the pages ask for nothing beyond their own folder. (Jupyter Book would be
larger: its first version is these two with a further theme, its second a program for Node.) What the
pages need on top stands in `tools.site_extension`.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.lessons import LESSONS
from serial_lora_course.door import enter
from tools import ROOT
from tools.addresses import archive, binder, colab, project_address
from tools.sources import EXERCISE, make_stub, tags

SITE = "build/site"
FILES = Path(__file__).parent / "site_files"
SECTIONS = {
    "The library": ["docs/library.md", "GLOSSARY.md"],
    "What was found": ["CLAIMS.md", "docs/study.md", "benchmarks/README.md"],
    "Many runs": [f"docs/{name}.md" for name in ("cluster", "slurm", "cloud", "scale")],
    "Past one machine": ["docs/cluster.md", "docs/slurm.md", "docs/cloud.md", "docs/scale.md"],
    "Teaching": ["INSTRUCTORS.md", "classroom/README.md"],
}
LAST_SECTION = "Working on it"
NO_PAGES = {"README.md", "AGENTS.md"}  # the first page, and one for programs
SELF_LINK = re.compile(r"^Solution: \[the solved lesson\].*\n?", re.MULTILINE)
OPTIONS = {
    "project": "Serial LoRA, from scratch",
    "extensions": ["myst_nb", "tools.site_extension"],
    "html_theme": "furo",
    "html_title": "Serial LoRA, from scratch",
    "html_static_path": [str(FILES)],
    "html_css_files": ["site.css"],
    "html_js_files": ["scrolling.js"],
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_copyright": False,
    "highlight_language": "none",  # of what is fenced without one: commands
    "html_show_sourcelink": False,
    "html_math_renderer": "mathml",
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",
    "nb_ipywidgets_js": {},
    "language": "en",
}

# ------------------------------------------------------------------------------ what is a page


def sections(root: Path) -> dict[str, list[str]]:
    """Title of each part of the site to its pages, as paths in the checkout."""
    found = {"Lessons": [f"solutions/{lesson.stem}.ipynb" for lesson in LESSONS]}
    found |= {
        title: [page for page in pages if (root / page).is_file()]
        for title, pages in SECTIONS.items()
    }
    listed = NO_PAGES.union(*found.values())
    every = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("[a-z]*/README.md")]
    names = sorted(path.relative_to(root).as_posix() for path in every)
    return found | {LAST_SECTION: [name for name in names if name not in listed]}


def stage(root: Path, folder: Path) -> None:
    """Copy what becomes a page into ``folder``, at the path that it has in the checkout.

    Raises:
        SerialLoRAError: a lesson was not built.
    """
    contents = []
    for title, pages in sections(root).items():
        for page in pages:
            if not (root / page).is_file():
                raise SerialLoRAError(f"{page} is missing: run `make notebooks`, which writes it.")
            target = folder / page
            target.parent.mkdir(parents=True, exist_ok=True)
            if page.endswith(".ipynb"):
                notebook = nbformat.read(root / page, as_version=4)
                nbformat.write(lesson_page(notebook, target.stem), target)
            else:
                shutil.copyfile(root / page, target)
        names = "\n".join(page.rpartition(".")[0] for page in pages)
        contents.append(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n")
    first = (root / "README.md").read_text("utf-8")
    (folder / "index.md").write_text("\n".join([first, *contents]), "utf-8")
    assets = root / "serial_lora_course" / "assets"
    for picture in (*root.glob("docs/*.svg"), *assets.glob("*.svg"), *assets.glob("study/*.png")):
        target = folder / picture.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)


# ------------------------------------------------------------------------------ a lesson's page


def lesson_page(notebook: NotebookNode, stem: str) -> NotebookNode:
    """A solved lesson as it is read: solutions folded, figures with their text."""
    notebook.cells = [cell for old in notebook.cells for cell in _cells(old)]
    title, _, rest = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = f"{title}\n\n{buttons(stem)}\n{rest}"
    return notebook


def _cells(cell: NotebookNode) -> Iterator[NotebookNode]:
    if cell.cell_type == "markdown":
        cell.source = SELF_LINK.sub("", cell.source)  # it would lead to this very page
    if EXERCISE in tags(cell):
        yield new_code_cell(make_stub(cell.source))
        cell.metadata.tags = [*tags(cell), "hide-input"]
        cell.metadata.mystnb = {
            "code_prompt_show": "Show a solution",
            "code_prompt_hide": "A solution",
        }
    yield cell


def buttons(stem: str) -> str:
    """Links to a lesson's notebook and, where the course has an address, to what runs it."""
    notebook = f"notebooks/{stem}.ipynb"
    links = {"Download the notebook": f"../{notebook}"}
    if address := project_address():
        links["Download the course"] = archive(address)
        links["Open in Colab"] = colab(address, notebook)
        links["Open in Binder"] = binder(address, notebook)
    shown = "".join(f'<a class="button" href="{link}">{words}</a>' for words, link in links.items())
    return f'<p class="buttons">{shown}</p>\n'


# ------------------------------------------------------------------------------ the command


def build(root: Path, out: Path) -> Path:
    """Write the site of a checkout into ``out``; returns its first page.

    Raises:
        SerialLoRAError: a lesson's notebook is missing; Sphinx is not installed, or finds fault
            with a page, such as a link that leads nowhere.
    """
    try:
        from sphinx.application import Sphinx
    except ImportError:
        raise SerialLoRAError(
            'the site is made by Sphinx, which is not installed: pip install -e ".[site]".'
        ) from None
    with TemporaryDirectory() as folder:
        pages, html, said = Path(folder, "pages"), Path(folder, "html"), StringIO()
        stage(root, pages)
        kept = Path(folder, "kept")
        Sphinx(pages, None, html, kept, "html", OPTIONS, status=None, warning=said).build()
        if faults := re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()).replace(f"{pages}/", ""):
            raise SerialLoRAError(f"Sphinx finds fault with these pages:\n{faults}")
        shutil.copytree(html, out, dirs_exist_ok=True)
    shutil.copytree(root / "notebooks", out / "notebooks", dirs_exist_ok=True)
    return out / "index.html"


def main(arguments: list[str] | None = None) -> int:
    """Build the site.

    Raises:
        SerialLoRAError: it cannot be built.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.site", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=ROOT / SITE, help="where to write it")
    print(f"Open {build(ROOT, parser.parse_args(arguments).out)} in a browser.")
    return 0


if __name__ == "__main__":
    enter("tools.site", main, one_line=False)
