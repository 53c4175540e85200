"""The command line: ``serial-lora doctor``, ``course``, ``open``, ``lab``, ``fit`` and the others."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from serial_lora.errors import SerialLoRAError
from serial_lora_course.command_groups import CourseGroup, lab_app
from serial_lora_course.config_file import OPTION, take_config
from serial_lora_course.doctor import doctor as examine
from serial_lora_course.door import DEBUG, enter

FIRST_LESSON = "00_start_here.ipynb"

app = typer.Typer(
    cls=CourseGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serial LoRA, from scratch: labs and tools of the course.",
    epilog=f"With {DEBUG} in a command, an error shows its traceback; {OPTION} run.yaml reads a "
    "command's options from a file.",
)
app.add_typer(lab_app, name="lab")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    enter("serial-lora", command, arguments)


def command(words: list[str]) -> object:
    """Run what the words ask for, with options out of a file where one is named."""
    rest, defaults = take_config(app, words)
    return app(args=rest, default_map=defaults)


@app.command()
def doctor() -> None:
    """Say whether this machine is ready, and what to do where it is not."""
    report = examine()
    print(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def course(
    clip_data: Annotated[
        str, typer.Option(help="tiny data sets of the CLIP lab, or all")
    ] = "food,nature,travel",
    sam_data: Annotated[
        str, typer.Option(help="tiny data sets of the SAM lab, or all")
    ] = "food,lines",
    sd3_data: Annotated[str, typer.Option(help="styles of the SD3 lab, or all")] = "openmoji",
) -> None:
    """Run the doctor and the three labs at tiny scale, Serial LoRA beside LoRA.

    Runs whose record is in runs/ already are not run again.
    """
    for command in course_commands(clip_data, sam_data, sd3_data):
        print(f"\n$ serial-lora {shlex.join(command)}", flush=True)
        if code := app(args=command, standalone_mode=False):
            raise typer.Exit(code)
    print("\nNext: `serial-lora open` opens the lessons in JupyterLab; start with lesson 00.")


def course_commands(clip_data: str, sam_data: str, sd3_data: str) -> list[list[str]]:
    """What `serial-lora course` runs, each as somebody would type it."""
    labs = {
        "clip": ["--dataset", clip_data, "--shots", "16"],
        "sam": ["--dataset", sam_data, "--percent", "100"],
        "sd3": ["--dataset", sd3_data, "--percent", "100"],
    }
    common = ["--scale", "tiny", "--methods", "lora,serial_lora", "--seeds", "1"]
    return [["doctor"], *(["lab", name, *options, *common] for name, options in labs.items())]


@app.command("open")
def open_lessons() -> None:
    """Open the lessons in JupyterLab, lesson 00 first."""
    here, checkout = Path.cwd(), Path(__file__).resolve().parents[1]
    for folder in (here, *here.parents, checkout):
        lesson = folder / "notebooks" / FIRST_LESSON
        if lesson.is_file():
            command = [sys.executable, "-m", "jupyterlab", str(lesson)]
            raise typer.Exit(subprocess.run(command).returncode)
    raise SerialLoRAError(
        f"notebooks/{FIRST_LESSON} is neither here nor further up: run this in the course's folder."
    )


@app.command()
def grade(
    notebooks: Annotated[list[Path], typer.Argument(help="learners' notebooks")],
    timeout: Annotated[int, typer.Option(min=1, help="seconds that one cell may take")] = 170,
    out: Annotated[Path, typer.Option(help="CSV file of results; replaced")] = Path("grades.csv"),
    unconfined: Annotated[
        bool,
        typer.Option(
            "--unconfined",
            help="without bubblewrap: notebooks then read, change and send what you can",
        ),
    ] = False,
) -> None:
    """Run learners' notebooks; say who passed which exercise.

    Each runs in bubblewrap: without a network, without your files, in an empty folder, with limits
    of memory, processes and time. Results are saved after each notebook. Exit code 2: a notebook
    could not be read, or is no lesson of the course; the others are graded all the same.
    """
    # Here, since nbgrader comes with an extra of its own, and takes a second.
    from serial_lora_course.grading import report

    raise typer.Exit(report.run(notebooks, timeout, out, unconfined))


@app.command()
def board(
    runs: Annotated[Path, typer.Argument(help="folder with a folder or JSONL file per learner")],
    out: Annotated[Path, typer.Option(help="SVG or PNG picture; replaced")] = Path("board.svg"),
) -> None:
    """Say and draw who in a class is how accurate with how few parameters.

    Reads the records of `serial-lora lab clip`, which must be of the same pictures and weights. Below
    the table stand the commands of the front, for anybody to run again.
    """
    # Here, since what reads records takes a while to load.
    from serial_lora_course import class_board

    class_board.run(runs, out)


if __name__ == "__main__":
    main()
