"""A command's options, as jsonargparse reads them: typed, or from a YAML file.

    def merge(
        classifier: Annotated[Path, "folder that fit wrote"],
        out: Annotated[Path, "safetensors file; replaced"] = Path("merged.safetensors"),
    ) -> None:
        '''Write the model's weights with the adapter multiplied in.'''

    asked = command_of(merge)
    asked.run(**read(asked, "serial-lora merge", ["my_classifier"]))

A parameter without a default is typed without a name. What takes several values is a tuple: they are typed
with commas (``--rank 4,8``), or are a list in YAML. Nothing here loads PyTorch.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import (
    ActionConfigFile,
    ActionYesNo,
    ArgumentParser,
    DefaultHelpFormatter,
    set_loader,
)

from serial_lora_course.files import printable

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
    hints = inspect.get_annotations(function, eval_str=True)  # as written, on Python 3.10 too
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
    parser = _Parser(command, program)
    words = _config_first(words)
    try:
        if words[:1] == [CONFIG] and not Path(*words[1:2]).expanduser().is_file():
            parser.error(f"{CONFIG} takes a YAML file, not {typed(words[1:2])!r}")
        found = parser.parse_args(words)
    except (OSError, UnicodeError, RuntimeError) as error:  # of the file, or a home of nobody
        parser.error(f"{CONFIG} takes a YAML file ({error})")
    values = {each.name: found[each.name] for each in command.options}
    for each in command.options:
        value = values[each.name]
        if each.several and value is not None:
            values[each.name] = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values


def typed(value: Any) -> str:
    """A value as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_yaml(options: dict[str, Any]) -> bytes:
    """Options as ``--config`` reads them; those that are None are left out."""
    plain = {name: value for name, value in options.items() if value is not None}
    for name, value in plain.items():
        if isinstance(value, tuple):
            plain[name] = list(value)
        elif isinstance(value, Path):
            plain[name] = str(value)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()


def _load(text: str) -> Any:
    """YAML, in which ``a, b`` is a list too."""
    value = yaml.safe_load(text)
    if isinstance(value, str) and "," in value and "\n" not in value:
        return [yaml.safe_load(part) for part in value.split(",") if part.strip()]
    return value


set_loader("yaml and commas", _load, (yaml.YAMLError, ValueError, RecursionError))


class _Help(DefaultHelpFormatter):
    """Says what options are, and nothing of Python's types."""

    _fill_text = argparse.RawDescriptionHelpFormatter._fill_text

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""


class _Parser(ArgumentParser):
    """jsonargparse's, with one sentence for a mistake."""

    def __init__(self, command: Command, program: str) -> None:
        names = [
            each.name.upper() + " ..." * each.several for each in command.options if each.required
        ]
        super().__init__(
            prog=program,
            usage=" ".join(["%(prog)s [options]", *names]),
            description=command.help,
            formatter_class=_Help,
            allow_abbrev=False,
            parser_mode="yaml and commas",
            print_config=None,
        )
        self.options = {each.name: each for each in command.options}
        self.add_argument(CONFIG, action=ActionConfigFile, help="YAML file with an option a line")
        for each in command.options:
            self.add_argument(each.flag, **self.how(each))

    @staticmethod
    def how(option: Option) -> dict[str, Any]:
        """How jsonargparse is told of an option."""
        told: dict[str, Any] = {"help": option.help}
        if option.required:
            return told | {"type": option.kind} | ({"nargs": "+"} if option.several else {})
        if option.default not in (None, False):
            told["help"] += f" [{typed(option.default)}]"
        told["default"] = option.default
        if option.kind is bool and option.default is None:
            return told | {"action": ActionYesNo(yes_prefix="", no_prefix="no-")}
        if option.kind is bool:
            return told | {"action": "store_true"}
        kind = option.kind
        told["type"] = tuple[kind, ...] | kind | None if option.several else kind | None
        return told | {"metavar": KINDS[kind].split()[-1].upper() + ",..." * option.several}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        key = re.match(r'Parser key "(\w+)', message)
        given = re.findall(r"(?:Given value|Got value): (.*)", message)
        if key and given and key[1] in self.options:
            asked = self.options[key[1]]
            kind = KINDS.get(asked.kind, "value")
            kind = f"{kind}s separated by commas" if asked.several else f"a {kind}"
            message = f"{asked.flag} takes {kind}, not {given[-1]!r}"
        sentence = printable(message.partition("\n")[0])
        self.exit(2, f"serial-lora: {sentence}; `{self.prog} --help` says what there is.\n")


def _config_first(words: Sequence[str]) -> list[str]:
    """The words with ``--config FILE`` in front, so that what is typed beside it counts more."""
    pairs = (word.split("=", 1) if word.startswith(f"{CONFIG}=") else [word] for word in words)
    words = [word for pair in pairs for word in pair]
    place = words.index(CONFIG) if CONFIG in words else len(words)
    return words[place : place + 2] + words[:place] + words[place + 2 :]
