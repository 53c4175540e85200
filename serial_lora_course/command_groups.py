"""Commands that are loaded when they are asked for, so that the others need not wait for torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from serial_lora_course.labs.registry import LABS


class LazyGroup(TyperGroup):
    """A group with some commands whose modules are loaded late."""

    @property
    def late(self) -> dict[str, tuple[str, str]]:
        """Name -> (summary, module); the module's ``command(name)`` makes the command."""
        return {}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self.late]

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in self.late:
            return super().get_command(ctx, name)
        return import_module(self.late[name][1]).command(name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, summary) for name, (summary, _) in self.late.items()]
        early = super().list_commands(ctx)
        commands = {name: super(LazyGroup, self).get_command(ctx, name) for name in early}
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(80)) for n, c in commands.items()] + rows)


class LabGroup(LazyGroup):
    """``serial-lora lab``: a command for each lab of the registry."""

    @property
    def late(self) -> dict[str, tuple[str, str]]:
        """Asked anew each time, so that a lab that was registered since is among them."""
        return {
            name: (words, "serial_lora_course.lab_options") for name, (_, words) in LABS.items()
        }


class CourseGroup(LazyGroup):
    """``serial-lora``: its own commands, and those for one's own pictures."""

    @property
    def late(self) -> dict[str, tuple[str, str]]:
        """Those of `serial_lora_course.work_commands`."""
        summaries = {
            "fit": "Adapt a vision model to a folder of class folders.",
            "predict": "Say which class pictures belong to.",
            "merge": "Write the model with the adapter multiplied in.",
            "show": "Say what an adapter file holds.",
        }
        module = "serial_lora_course.work_commands"
        return {name: (summary, module) for name, summary in summaries.items()}


lab_app = typer.Typer(
    cls=LabGroup, no_args_is_help=True, help="Adapt a backbone, measure, keep records."
)
