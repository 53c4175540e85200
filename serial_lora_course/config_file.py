"""``--config run.yaml``: the options of any command, read from a file.

Each line is an option and its value (``lr: 0.002``, ``blocks: [4, 5]``, ``mirror: false``). What is typed
beside it counts more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
import yaml

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.files import expanded

OPTION = "--config"


def take_config(app: typer.Typer, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The command line without ``--config FILE``, and the file's options as a default map.

    Raises:
        SerialLoRAError: no file named, no such file, or an option that the command has not.
    """
    words = [word for given in arguments for word in _apart(given)]
    if OPTION not in words:
        return words, {}
    place = words.index(OPTION)
    rest, named = words[:place] + words[place + 2 :], words[place + 1 : place + 2]
    if not named:
        raise SerialLoRAError("--config needs the name of a YAML file after it.")
    options = read_config(expanded(named[0]))
    command, path = _command_of(typer.main.get_command(app), rest)
    known = {parameter.name for parameter in command.params}
    if unknown := sorted(set(options) - known):
        raise SerialLoRAError(
            f"{named[0]} has the option {unknown[0]!r}, which `serial-lora {' '.join(path)}` does "
            f"not know; it has {', '.join(sorted(filter(None, known)))}."
        )
    for name in reversed(path):
        options = {name: options}
    return rest, options


def _apart(given: str) -> list[str]:
    """``--config=FILE`` as two words."""
    return given.split("=", 1) if given.startswith(f"{OPTION}=") else [given]


def _command_of(group: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The command that some words begin with, and its name in words."""
    path: list[str] = []
    command = group
    while hasattr(command, "get_command") and len(path) < len(words):
        found = command.get_command(typer.Context(command), words[len(path)])
        if found is None:
            break
        path, command = [*path, words[len(path)]], found
    return command, path


def read_config(path: Path) -> dict[str, Any]:
    """The options in a file, with underscores; of several values one text, as they are typed.

    Raises:
        SerialLoRAError: it cannot be read, or has no options.
    """
    try:
        text = path.read_text("utf-8") if path.is_file() else "it is no file"
        options = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SerialLoRAError(f"{path} cannot be read as YAML ({error}); check it.") from error
    if not isinstance(options, dict) or not all(map(_is_plain, options.values())):
        raise SerialLoRAError(
            f"{path} must be a file with one option a line, such as `lr: 0.002` or `blocks: [4, 5]`."
        )
    return {
        str(name).replace("-", "_"): ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in options.items()
    }


def _is_plain(value: object) -> bool:
    """Whether it is one value, or a list of such."""
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(each, (list, dict, set, tuple)) for each in values)


def write_config(path: Path, options: dict[str, Any]) -> None:
    """Write options as `read_config` reads them; those that are None are left out."""
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }
    write_whole(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())
