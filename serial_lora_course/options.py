"""A command's options, typed or from a file: a function's parameters, or a configuration's fields.

A parameter, ``out: Annotated[Path, "file; replaced"] = Path("board.svg")``, becomes ``--out PATH``; one without a
default is typed without a name. What takes several values is a tuple: they are typed with commas
(``--rank 4,8``). ``@run.txt`` stands for the words of a file. Nothing here loads PyTorch.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

from serial_lora_course.files import printable

KINDS = {int: "whole number", float: "number", str: "name", Path: "path"}


class Option(NamedTuple):
    """What may be typed: of one kind (int, float, str, Path or bool), once or several times."""

    name: str
    kind: type
    help: str
    default: Any = None
    several: bool = False
    required: bool = False

    @property
    def flag(self) -> str:
        """How it is typed."""
        return self.name if self.required else f"--{self.name.replace('_', '-')}"


class Command(NamedTuple):
    """What can be asked for: `run` takes the options by their names, and gives the exit code."""

    help: str
    options: Sequence[Option]
    run: Callable[..., int | None]


def command_of(function: Callable[..., int | None]) -> Command:
    """A function with annotated parameters as a command."""
    hints = inspect.get_annotations(function, eval_str=True)
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint, help = get_args(hints[name])
        kind, several = kind_of(hint)
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        options.append(Option(name, kind, help, default, several, required))
    return Command(inspect.getdoc(function), options, function)


def settings_of(configs: Mapping[str, Any], swept: Collection[str] = ()) -> list[Option]:
    """An option for each field of a lab's configuration.

    Args:
        configs: scale -> the configuration with what is usual at that scale, or its class.
        swept: the settings of which a command takes several.
    """
    one = next(iter(configs.values()))
    hints, options = get_type_hints(one if isinstance(one, type) else type(one)), []
    for name in (each.name for each in fields(one)):
        usual = {scale: getattr(config, name) for scale, config in configs.items()}
        help = one.of(name, "help") + ("; one or several" if name in swept else "")
        if any(value is not None for value in usual.values()):
            told = [f"{scale}: {typed(value)}".removeprefix(": ") for scale, value in usual.items()]
            help += f" [{'; '.join(told)}]"
        kind, several = kind_of(hints[name])
        options.append(Option(name, kind, help, several=several or name in swept))
    return options


def kind_of(hint: Any) -> tuple[type, bool]:
    """The kind of a type, and whether it is of several: ``tuple[int, ...] | None`` is (int, True)."""
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    inside = get_args(hint)
    return kind_of(inside[0]) if inside else (hint, False)


def read(command: Command, program: str, words: Sequence[str]) -> dict[str, Any]:
    """The value of every option; of what is said twice, the later counts.

    Raises:
        SystemExit: 0 after ``--help``, 2 after one sentence about what was typed.
    """
    nameless = (
        each.name.upper() + " ..." * each.several for each in command.options if each.required
    )
    parser = _Parser(
        prog=program,
        usage=" ".join(["%(prog)s [options]", *nameless]),
        description=command.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    for each in command.options:
        parser.add_argument(each.flag, **_how(each))
    found = vars(parser.parse_intermixed_args(words))
    values = {
        o.name: o.default if found[o.name] is None else found[o.name] for o in command.options
    }
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _how(option: Option) -> dict[str, Any]:
    """How argparse is told of an option."""
    told: dict[str, Any] = {"help": option.help.replace("%", "%%")}
    if option.default not in (None, False):
        told["help"] += f" [{typed(option.default)}]"
    if option.kind is bool:
        return told | {"action": argparse.BooleanOptionalAction}
    if option.required:
        nargs = "+" if option.several else None
        return told | {"type": option.kind, "metavar": option.name.upper(), "nargs": nargs}

    def several(text: str) -> tuple:
        return tuple(option.kind(part.strip()) for part in text.split(","))

    kind = KINDS[option.kind]
    several.__name__ = f"{kind}s separated by commas"  # as argparse calls it
    told["metavar"] = kind.split()[-1].upper() + ",..." * option.several
    return told | {"type": several if option.several else option.kind}


def said(options: Sequence[Option], values: Mapping[str, Any]) -> Iterator[list[str]]:
    """The words that say the value of each option; of one that has none, nothing is said."""
    for option in options:
        value = values.get(option.name)
        if value is None:
            continue
        if option.required:
            yield [str(each) for each in (value if option.several else [value])]
        elif option.kind is bool:
            yield [option.flag if value else f"--no-{option.flag[2:]}"]
        elif (text := typed(value)).startswith("-"):
            yield [f"{option.flag}={text}"]  # or it would be read as an option
        else:
            yield [option.flag, text]


def typed(value: Any) -> str:
    """A value as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


class _Parser(argparse.ArgumentParser):
    """One sentence for a mistake, and files as a shell would read them."""

    def error(self, message: str) -> NoReturn:
        sentence = printable(message)
        self.exit(2, f"serial-lora: {sentence}; `{self.prog} --help` lists the options.\n")

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """The words of a line in a file."""
        return shlex.split(arg_line, comments=True)
