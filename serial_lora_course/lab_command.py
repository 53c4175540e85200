"""The command of one lab: its options are the settings of the lab, its work is `run_lab`."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from serial_lora.errors import SerialLoRAError, require_number
from serial_lora_course.files import expanded, printable, refusals_told
from serial_lora_course.labs.config import SWEPT, swept_configs
from serial_lora_course.labs.grid import Done, dry_run, here, run_lab
from serial_lora_course.labs.lab import Draw, Lab
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.ray_grid import on_ray
from serial_lora_course.labs.records import Record
from serial_lora_course.labs.registry import LABS, get_lab
from serial_lora_course.labs.report import results_table, run_line
from serial_lora_course.options import Command, Option, said, settings_of

MORE = """{}

Runs whose record is in --out are skipped, and an interrupted run is resumed.
Use --on ray for many runs on many cores, GPUs or machines."""
CLUSTER = (
    Option("on", str, "ray: distribute the runs over a Ray cluster; ray:HOST:PORT selects one"),
    Option("cpus_per_run", float, "CPU cores and threads per run on the cluster", 1.0),
    Option(
        "gpus_per_run",
        float,
        "GPUs per run, also a fraction; one by default if the cluster has any",
    ),
)
SOMEWHERE = ("out", "keep", "dry_run", *(each.name for each in CLUSTER))
"""Options that say where to run or write, or what to be told, and nothing of the run."""


def lab_command(name: str) -> Command:
    """The command of one lab."""
    kind = get_lab(name)
    options = options_of(kind)
    run = partial(run_command, kind, options)
    return Command(MORE.format(LABS[name][1]), options, lambda **chosen: run(chosen))


def options_of(kind: type[Lab]) -> list[Option]:
    """What a lab can be asked for: what to run, its settings, where to read and write."""
    help = kind.help
    amounts = help.get("amount", "percentages of the training pictures, separated by commas")
    usual = ("lora", "serial_lora")
    ratio = "LoRA+: learning rate of B divided by that of A, one or several; 20 by default"
    kept = "folder for each new run's trained tensors, results per test picture, and pictures"
    return [
        Option("scale", str, help.get("scale", "tiny or paper"), "tiny"),
        Option("dataset", str, help.get("dataset", "names separated by commas, or all"), "all"),
        Option("methods", str, f"all, or some of {', '.join(METHODS)}", usual, several=True),
        Option(kind.unit, int, amounts, (kind.amount,), several=True),
        Option("seeds", int, "number of seeds: runs use seeds 1 to this number", 3),
        *settings_of(kind.configs, SWEPT),
        Option("ratio", float, ratio, several=True),
        Option("weights", str, help["weights"], "default"),
        Option("out", Path, "JSONL file of records", Path(f"runs/{kind.name}.jsonl")),
        Option("dry_run", bool, "only list the runs that are left, and time two steps", False),
        Option("keep", Path, kept),
        *CLUSTER,
    ]


def run_command(kind: type[Lab], options: list[Option], chosen: dict[str, Any]) -> None:
    """What every lab command does: settings first, a line for each run, the table at the end."""

    def tell(text: str) -> None:
        print(printable(text))

    def tell_record(record: Record, is_new: bool) -> None:
        tell(run_line(kind.report, record, is_new))

    changes = {each.name: chosen[each.name] for each in settings_of(kind.configs, SWEPT)}
    for config in swept_configs(kind.configs, chosen["scale"], **changes):
        tell(f"Settings: {config}")
    require_number("seeds", chosen["seeds"], whole=True, least=1, below=1001)
    asked = (
        kind.name,
        _datasets(kind, chosen),
        list(METHODS) if chosen["methods"] == ("all",) else chosen["methods"],
        chosen[kind.unit],
        range(1, chosen["seeds"] + 1),
        chosen["scale"],
    )
    changes |= {name: chosen[name] for name in ("ratio", "out", "weights")}
    if chosen["dry_run"]:
        for line in dry_run(*asked, **changes):
            tell(line)
        return
    records = run_lab(
        *asked,
        on_record=tell_record,
        doing=_doing(**{each.name: chosen[each.name] for each in CLUSTER}),
        draw=_keeping(chosen["keep"]),
        command=command_line(kind, options, chosen),
        **changes,
    )
    print_table(results_table(kind.report, records))
    tell(f"Records: {chosen['out']}")


def print_table(table: Any) -> None:
    """Print a table of Rich's; names in it stand as they are, also those like "[b]" or ":cat:"."""
    Console(markup=False, emoji=False, highlight=False).print(table)


def command_line(kind: type[Lab], options: list[Option], chosen: Mapping[str, Any]) -> str:
    """The command that asks for the same runs: what to run, and every option that was given."""
    always = ("dataset", "methods", kind.unit, "seeds")
    given = {
        option.name: chosen[option.name]
        for option in options
        if option.name in always or chosen[option.name] != option.default
    }
    told = [option for option in options if option.name not in SOMEWHERE]
    return shlex.join(["serial-lora", "lab", kind.name, *chain.from_iterable(said(told, given))])


def _datasets(kind: type[Lab], chosen: Mapping[str, Any]) -> list[str]:
    """The names of the data sets that are asked for; a folder may have a comma in its name."""
    asked = chosen["dataset"]
    if asked == "all":
        return list(kind.datasets(chosen["scale"]))
    if os.path.isdir(expanded(asked)):
        return [asked]
    return [name.strip() for name in asked.split(",") if name.strip()]


def _doing(
    on: str | None, cpus_per_run: float, gpus_per_run: float | None
) -> Callable[..., Iterator[Done]]:
    """How a command's runs are done, by its options of `CLUSTER`."""
    if on is None:
        return here
    kind, _, address = on.partition(":")
    if kind != "ray":
        raise SerialLoRAError(f"Runs are done on `ray` or `ray:HOST:PORT`, not on {on!r}.")
    return partial(on_ray, address or None, cpus_per_run, gpus_per_run)


def _keeping(folder: Path | None) -> Draw | None:
    """What is done with a run that was just measured."""
    if folder is None:
        return None
    with refusals_told():  # before hours go into what it is to hold
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    from serial_lora_course.plots.runs import keep_and_draw  # matplotlib takes a while to load

    return partial(keep_and_draw, folder)
