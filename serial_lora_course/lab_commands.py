"""The lab commands: ``serial-lora lab clip|sam|sd3``, one for each lab of the registry."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from serial_lora_course.labs.registry import LABS


class LabGroup(TyperGroup):
    """The commands of all labs; a lab is loaded when its command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(LABS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in LABS:
            return None
        # torch and a lab's own library load slowly; the doctor's command must do without them
        from serial_lora_course.lab_options import lab_command

        return lab_command(name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in LABS.items()])


app = typer.Typer(
    cls=LabGroup, no_args_is_help=True, help="Adapt a backbone, measure, keep records."
)
