"""The command line: ``serial-lora doctor``, ``course``, ``open``, ``lab``, ``fit`` and the others.

A command is a function: its parameters are the options, its docstring is the help, and what it returns is
the exit code. What it needs is imported inside it, so that ``--help`` need not wait for PyTorch.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from serial_lora_course.door import DEBUG
from serial_lora_course.files import expanded, printable
from serial_lora_course.labs.registry import LABS
from serial_lora_course.options import command_of, read
from serial_lora_course.work.commands import fit_command, merge, predict, show

FIRST_LESSON = "00_start_here.ipynb"
COURSE = (
    "doctor",
    "lab clip --dataset photographs --shots 16 --methods lora,serial_lora --seeds 1",
    "lab sam --dataset photographs --percent 100 --methods lora,serial_lora --seeds 1",
    "lab sd3 --dataset openmoji --percent 100 --methods lora,serial_lora --seeds 1",
)
FOOT = (
    "`serial-lora COMMAND --help` shows a command's options, @run.txt reads them from a file, and\n"
    f"{DEBUG} shows an error's traceback."
)


def command(words: Sequence[str]) -> int | None:
    """Run what the words ask for; its exit code."""
    run, values = understood(words)
    return run(**values)


def understood(words: Sequence[str]) -> tuple[Callable[..., int | None], dict[str, Any]]:
    """What is to be run with which options.

    Raises:
        SystemExit: 0 after ``--help``, 2 after one sentence about what was typed.
    """
    words, program, known = list(words), "serial-lora", SUMMARIES
    if words[:1] == ["lab"]:
        words, program, known = words[1:], "serial-lora lab", {n: s for n, (_, s) in LABS.items()}
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        rows = [f"  {each:10}{summary}" for each, summary in known.items()]
        print("\n".join([f"Usage: {program} COMMAND [options]", "", *rows, "", FOOT]))
        raise SystemExit(0)
    if name not in known:
        there = printable(f"there is no `{program} {name}`; there are {', '.join(known)}.")
        print(f"serial-lora: {there}", file=sys.stderr)
        raise SystemExit(2)
    if known is not SUMMARIES:
        from serial_lora_course.lab_command import lab_command

        asked = lab_command(name)
    else:
        asked = fit_command() if name == "fit" else COMMANDS[name]
    return asked.run, read(asked, f"{program} {name}", rest)


def doctor() -> int:
    """Check whether this machine is ready, and say what to do if it is not."""
    from serial_lora_course.doctor import doctor as examine

    return examine()


def course() -> int:
    """Run the doctor and the three labs at tiny scale, Serial LoRA beside LoRA.

    Runs whose record is already in runs/ are skipped.
    """
    for line in COURSE:
        print(f"\n$ serial-lora {line}", flush=True)
        if code := command(shlex.split(line)):
            return code
    print("\nNext: `serial-lora open` opens the lessons in JupyterLab; start with lesson 00.")
    return 0


def open_lessons() -> int:
    """Open the lessons in JupyterLab, lesson 00 first."""
    here, checkout = Path.cwd(), Path(__file__).resolve().parents[1]
    for folder in (here, *here.parents, checkout):
        lesson = folder / "notebooks" / FIRST_LESSON
        if lesson.is_file():
            quiet = str(Path(__file__).parent / "assets" / "jupyter")  # without teachers' menus
            others = os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)
            paths = os.pathsep.join([quiet, *filter(None, others)])
            command = [sys.executable, "-m", "jupyterlab", str(lesson)]
            environment = os.environ | {"JUPYTER_CONFIG_PATH": paths}
            return subprocess.run(command, env=environment).returncode
    from serial_lora.errors import SerialLoRAError

    raise SerialLoRAError(
        f"notebooks/{FIRST_LESSON} is neither here nor further up: run this in the course's folder."
    )


def grade(
    notebooks: Annotated[tuple[Path, ...], "learners' notebooks"],
    timeout: Annotated[int, "time limit for one cell, in seconds"] = 170,
    out: Annotated[Path, "CSV file for the results; replaced if it exists"] = Path("grades.csv"),
    unconfined: Annotated[
        bool,
        "run without bubblewrap: notebooks can then read, change and send everything that you can",
    ] = False,
) -> int:
    """Run learners' notebooks and report who passed which exercise.

    Each runs in bubblewrap: without network, without access to your files, in an empty folder, with limits
    on memory, processes and time. Results are saved after each notebook. Exit code 2: a notebook
    could not be read, or is no lesson of the course; the others are still graded.
    """
    from serial_lora.errors import require_number
    from serial_lora_course.grading import report

    require_number("timeout", timeout, whole=True, least=1)
    return report.run(list(notebooks), timeout, out, unconfined)


def board(
    runs: Annotated[Path, "folder with one folder or JSONL file per learner"],
    out: Annotated[Path, "SVG or PNG file; replaced if it exists"] = Path("board.svg"),
) -> None:
    """Show a class's results as a table and a figure: accuracy against trained parameters.

    Reads the records of `serial-lora lab clip`, which must use the same pictures and weights. Below the
    table are the commands of the runs on the Pareto front, so that anybody can repeat them.
    """
    from serial_lora_course.lab_command import print_table
    from serial_lora_course.labs.board import board_table, class_entries, read_class
    from serial_lora_course.plots.board import plot_board
    from serial_lora_course.plots.style import save_figure

    entries = class_entries(read_class(expanded(runs)))
    picture = save_figure(plot_board(entries), expanded(out))
    print_table(board_table(entries))
    for row in entries[entries["front"]].itertuples():
        print(printable(f"{row.learner}: {row.runs[0].command or 'command not noted'}"))
    print(printable(f"Picture: {picture}"))


COMMANDS = {
    "doctor": command_of(doctor),
    "course": command_of(course),
    "open": command_of(open_lessons),
    "grade": command_of(grade),
    "board": command_of(board),
    "predict": command_of(predict),
    "show": command_of(show),
    "merge": command_of(merge),
}
SUMMARIES = {
    "lab": "Adapt a backbone, measure, keep records.",
    "fit": "Adapt a vision model to a folder with one folder of pictures per class.",
} | {name: each.help.partition("\n")[0] for name, each in COMMANDS.items()}
