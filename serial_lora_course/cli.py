"""The command line: ``serial-lora doctor``, ``lab clip|sam|sd3``, ``grade``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.commands import app as lab_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serial LoRA, from scratch: labs and tools of the course.",
)
app.add_typer(lab_app, name="lab")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    try:
        app(args=arguments)
    except SerialLoRAError as error:
        print(f"serial-lora: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def doctor() -> None:
    """Say whether this machine is ready for the course, and what to do where it is not."""
    from serial_lora_course.doctor import doctor as examine

    report = examine()
    print(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def grade(
    notebooks: Annotated[list[Path], typer.Argument(help="learners' notebooks")],
    timeout: Annotated[int, typer.Option(min=1, help="seconds that one cell may take")] = 170,
    jobs: Annotated[int, typer.Option(min=1, help="notebooks that run at the same time")] = 1,
    out: Annotated[Path, typer.Option(help="CSV file of results; replaced")] = Path("grades.csv"),
) -> None:
    """Run learners' notebooks in fresh kernels and say, exercise by exercise, who passed what.

    Each runs offline in a folder of its own and may write nowhere else. Exit code 2: a notebook
    could not be read, or is no lesson of the course; the others are graded all the same.
    """
    from serial_lora_course.grading import report as grade_report

    raise typer.Exit(grade_report.run(notebooks, timeout, jobs, out))


if __name__ == "__main__":
    main()
