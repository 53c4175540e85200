"""All that must hold before a change is kept: ``python -m tools.test``, on every system.

::

    python -m tools.test                    style, tests but the slow ones, every lesson
    python -m tools.test --all              the slow tests too, and both notebooks of a lesson apart
    python -m tools.test --lint             style alone, which room imports which, the library's types
    python -m tools.test --library          tests of the library alone
    python -m tools.test --lessons 00 01    both notebooks of these lessons alone; without numbers, all

Tests and lessons run without a network, on two processes of one thread each. The first step that
fails ends the run, with its exit code.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable

from serial_lora_course.door import enter
from serial_lora_course.offline import offline_environment
from tools import ROOT
from tools.notebooks import CELL_TIMEOUT_SECONDS, JOINED, TINY
from tools.sources import find_sources

STYLE = [
    ["-m", "ruff", "check", "."],
    ["-m", "ruff", "format", "--check", "."],
    ["-c", "from importlinter import cli; raise SystemExit(cli.lint_imports())"],
    ["-m", "mypy"],
]
# A file, and so a notebook, stays in one process, and the processes take files as they are listed. nbval
# compares the outputs of proof cells.
PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
OWN = {"OMP_NUM_THREADS": "1", "SERIAL_LORA_STRICT": "1"}
# With glibc, what a step frees stays with its process for the next step.
OWN |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
NBVAL = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT_SECONDS}"]


def planned(arguments: list[str] | None = None) -> list[list[str]]:
    """What a command line asks for: the arguments of Python, step by step.

    Raises:
        SerialLoRAError: there is no lesson of such a number.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.test", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--all", action="store_true", help="the slow tests too")
    parser.add_argument("--lint", action="store_true", help="style alone")
    parser.add_argument("--library", action="store_true", help="the library's tests alone")
    parser.add_argument("--lessons", nargs="*", metavar="NN", help="lessons alone")
    options = parser.parse_args(arguments)
    chosen: list[list[str]] = []
    if options.lint:
        chosen += STYLE
    if options.library:
        chosen.append([*PYTEST, "tests/library"])
    if options.lessons is not None:
        chosen.append([*PYTEST, *NBVAL, *lesson_files(options.lessons)])
    if chosen:
        return chosen
    if options.all:
        return [*STYLE, [*PYTEST, *NBVAL, *lesson_files(), "tests"]]
    joined = [f"{JOINED}/{source.stem}.ipynb" for source in find_sources(ROOT)]
    return [
        *STYLE,
        ["-m", "tools.notebooks", "join"],
        [*PYTEST, *NBVAL, "-m", "not slow", *joined, "tests"],
    ]


def lesson_files(numbers: Iterable[str] = ()) -> list[str]:
    """Both notebooks of these lessons; of every lesson when there are none."""
    stems = [source.stem for source in find_sources(ROOT, numbers)]
    return [f"{folder}/{stem}.ipynb" for folder in ("notebooks", "solutions") for stem in stems]


def main(arguments: list[str] | None = None) -> int:
    """Run the steps in order; the exit code of the first that fails.

    Raises:
        SerialLoRAError: there is no lesson of such a number.
    """
    steps = planned(arguments)
    environment = offline_environment() | OWN | TINY
    for step in steps:
        print(f"\n$ python {' '.join(step)}", flush=True)
        done = subprocess.run([sys.executable, *step], cwd=ROOT, env=environment)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    enter("tools.test", main)
