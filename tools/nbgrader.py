"""The lessons for nbgrader, as a class's folder: ``python -m tools.nbgrader FOLDER [NN ...]``.

::

    FOLDER/source/02_parameter_count/    solved, with nbgrader's cells: the teacher's
    FOLDER/nbgrader_config.py            submissions run in bubblewrap; yours from then on

In that folder, `nbgrader generate_assignment 02_parameter_count` makes what learners get. Run again after an
update of the course; grades stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from serial_lora_course.door import enter
from tools import ROOT
from tools.sources import find_sources, read_source


def main(arguments: list[str] | None = None) -> None:
    """Make the folder.

    Raises:
        SerialLoRAError: there is no lesson of such a number, or no nbgrader.
    """
    # Here, since it needs an extra of its own.
    from serial_lora_course.grading.nbgrader import make_course

    parser = argparse.ArgumentParser(
        prog="python -m tools.nbgrader", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="made where it is missing")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; all if none")
    options = parser.parse_args(arguments)
    sources = find_sources(ROOT, options.lessons)
    make_course(options.folder.resolve(), {path.stem: read_source(path) for path in sources})
    print(f"{options.folder}/source has {len(sources)} lessons; next: nbgrader, in that folder.")


if __name__ == "__main__":
    enter("tools.nbgrader", main)
