"""The lessons for nbgrader, as a class's folder: ``python -m tools.nbgrader FOLDER [NN ...]``.

::

    FOLDER/source/02_parameter_count/    solved, with nbgrader's cells: the teacher's
    FOLDER/release/02_parameter_count/   the same without answers: what learners get
    FOLDER/nbgrader_config.py            submissions run in bubblewrap; yours from then on
    FOLDER/gradebook.db                  the lessons' checks and their points

Run again after an update of the course; grades stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.grading.course import make_course
from tools import ROOT
from tools.sources import find_sources, read_source


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; 2 for a lesson that there is not."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.nbgrader", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="made where it is missing")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; all if none")
    options = parser.parse_args(arguments)
    try:
        sources = find_sources(ROOT, options.lessons)
        make_course(options.folder.resolve(), {path.stem: read_source(path) for path in sources})
    except SerialLoRAError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.folder}/release has {len(sources)} lessons; next: nbgrader, in that folder.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
