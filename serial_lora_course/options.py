"""A command's options, typed or from a YAML file: a function's parameters, or a configuration's fields.

A parameter, ``out: Annotated[Path, "file; replaced"] = Path("board.svg")``, becomes ``--out PATH``; one without a
default is typed without a name. What takes several values is a tuple: they are typed
with commas (``--rank 4,8``), or are a list in YAML. Nothing here loads PyTorch.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import yaml

from serial_lora_course.files import expanded, printable

CONFIG = "--config"
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
    """The value of every option; what is typed counts more than what a YAML file says.

    Raises:
        SystemExit: 0 after ``--help``, 2 after one sentence about what was typed.
    """
    required = {each.name: each for each in command.options if each.required}
    names = (name.upper() + " ..." * each.several for name, each in required.items())
    parser = _Parser(
        prog=program,
        usage=" ".join(["%(prog)s [options]", *names]),
        description=command.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(CONFIG, metavar="FILE", help="YAML file with one option per line")
    for each in command.options:
        parser.add_argument(each.flag, **_how(each))

    def said_in(words: Sequence[str]) -> dict[str, Any]:
        found = vars(parser.parse_intermixed_args(words))
        return {name: value for name, value in found.items() if value not in (None, [])}

    said = said_in(words)
    if path := said.pop("config", None):
        if (file := _words_in(path, required)) is None:
            parser.error(f"{CONFIG} takes a YAML file, not {path!r}")
        said = said_in(file) | said
    if missing := [name.upper() for name in required if name not in said]:
        parser.error(f"{missing[0]} is missing")
    values = {each.name: said.get(each.name, each.default) for each in command.options}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _how(option: Option) -> dict[str, Any]:
    """How argparse is told of an option."""
    told: dict[str, Any] = {"help": option.help.replace("%", "%%")}
    if option.default not in (None, False):
        told["help"] += f" [{typed(option.default)}]"
    if option.kind is bool:
        return told | {"action": argparse.BooleanOptionalAction}
    if option.required:
        nargs = "*" if option.several else "?"  # since a file may have said it
        return told | {"type": option.kind, "metavar": option.name.upper(), "nargs": nargs}

    def several(text: str) -> tuple:
        return tuple(option.kind(part.strip()) for part in text.split(","))

    kind = KINDS[option.kind]
    several.__name__ = f"{kind}s separated by commas"  # as argparse calls it
    told["metavar"] = kind.split()[-1].upper() + ",..." * option.several
    return told | {"type": several if option.several else option.kind}


def _words_in(path: str, nameless: Collection[str]) -> list[str] | None:
    """What a YAML file says, as it would be typed; None where it is no such file."""
    try:
        if not expanded(path).is_file():  # a device has no end
            return None
        said = yaml.load(expanded(path).read_bytes(), yaml.BaseLoader)  # every value as it is typed
        pairs = list(said.items())
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):
        return None
    words = []
    for name, value in pairs:
        flag = str(name).replace("_", "-")
        if name in nameless:
            words += value if isinstance(value, list) else [typed(value)]
        elif value in ("true", "false"):
            words.append(f"--{flag}" if value == "true" else f"--no-{flag}")
        elif value != "null":
            words.append(f"--{flag}={typed(value)}")
    return words


def typed(value: Any) -> str:
    """A value as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_yaml(options: dict[str, Any]) -> bytes:
    """A record's settings as ``--config`` reads them; those that are None are left out."""
    said = {name: value for name, value in options.items() if value is not None}
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True).encode()


class _Parser(argparse.ArgumentParser):
    """One sentence for a mistake."""

    def error(self, message: str) -> NoReturn:
        sentence = printable(message)
        self.exit(2, f"serial-lora: {sentence}; `{self.prog} --help` lists the options.\n")
