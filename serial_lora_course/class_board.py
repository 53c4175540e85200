"""The command ``serial-lora board``: a class's records as a table and a picture."""

from __future__ import annotations

from pathlib import Path

from serial_lora_course.files import expanded, printable
from serial_lora_course.lab_command import print_table
from serial_lora_course.labs.board import board_table, class_entries, read_class
from serial_lora_course.plots.board import plot_board
from serial_lora_course.plots.style import save_figure


def run(runs: Path, out: Path) -> None:
    """Print the table and the front's commands; write the picture.

    Raises:
        SerialLoRAError: records are missing or cannot be compared, or the picture cannot be written.
    """
    entries = class_entries(read_class(expanded(runs)))
    picture = save_figure(plot_board(entries), expanded(out))
    print_table(board_table(entries))
    for row in entries[entries["front"]].itertuples():
        told = f"{row.learner}: {row.runs[0].command or 'command not noted'}"
        print(printable(told))
    print(printable(f"Picture: {picture}"))
