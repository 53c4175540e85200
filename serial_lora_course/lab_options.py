"""The command of one lab: its options are the settings of the lab, its work is `run_lab`."""

from __future__ import annotations

import inspect
import os
import shlex
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from rich.console import Console

from serial_lora.errors import SerialLoRAError
from serial_lora_course.config_file import write_config
from serial_lora_course.files import expanded, printable
from serial_lora_course.labs.config import SWEPT, LabConfig, seeds_to, swept_configs
from serial_lora_course.labs.forecast import CARDS, forecast, told
from serial_lora_course.labs.grid import Done, here, run_lab
from serial_lora_course.labs.keep import keep_run, require_folder
from serial_lora_course.labs.lab import Draw, Lab
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.processes import is_first_process
from serial_lora_course.labs.progress import GridProgress
from serial_lora_course.labs.ray_grid import on_ray
from serial_lora_course.labs.ray_workers import Share
from serial_lora_course.labs.records import Record
from serial_lora_course.labs.registry import LABS, get_lab
from serial_lora_course.labs.report import results_table, run_line
from serial_lora_course.paper_tables import paper_results

DRAWINGS = {
    "sam": "serial_lora_course.plots.sam_runs",
    "sd3": "serial_lora_course.plots.sd3_runs",
}
"""The modules whose ``draw_run`` draws a lab's run; loaded when a run is drawn."""
MORE = (
    "Runs whose record is in --out are not run again; an interrupted run goes on where it stopped. "
    "One run on several GPUs: accelerate launch -m serial_lora_course.cli lab {} ... Many runs on many "
    "cores, cards or machines: --on ray."
)
Configs = Mapping[str, LabConfig]
# Options that say where to run or write, or what to be told, and nothing of the run.
CLUSTER = {
    "on": (str | None, None, "ray: spread the runs over a Ray cluster; ray:HOST:PORT names one"),
    "cpus_per_run": (float, 1.0, "cores, and threads, of a run on the cluster"),
    "gpus_per_run": (float | None, None, "GPUs, or a part of one; one where the cluster has any"),
    "memory_per_run": (
        float | None,
        None,
        "GiB of a machine's memory; nothing is asked by default",
    ),
}
SOMEWHERE = ("out", "pictures", "keep", "dry_run", "card", *CLUSTER)


def command(name: str) -> Any:
    """The command of one lab."""
    parameters = options_of(get_lab(name))

    def run(**options: Any) -> None:
        run_command(name, parameters, options)

    run.__signature__ = inspect.Signature(parameters)
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name, help=f"{LABS[name][1]}\n\n{MORE.format(name)}")(run)
    return typer.main.get_command(one)


def options_of(kind: type[Lab]) -> list[inspect.Parameter]:
    """The options of a lab's command: what to run, its settings, where to read and write."""
    help, unit = kind.help, kind.unit
    amounts = help.get("amount", "shares of the training pictures, separated by commas")
    methods = f"names separated by commas, or 'all': {', '.join(METHODS)}"
    ratio = "LoRA+'s rate of B over that of A, one or several separated by commas; 20 by default"
    some = [
        option("scale", str, "tiny", help.get("scale", "tiny or paper")),
        option("dataset", str, "all", help.get("dataset", "names separated by commas, or 'all'")),
        option("methods", str, "lora,serial_lora", methods),
        option(unit, str, str(kind.amount), amounts),
        option("seeds", int, 3, "number of seeds: 1 to this one"),
        *setting_options(kind.configs),
        option("ratio", str | None, None, ratio),
        option("weights", str, "default", help["weights"]),
        option("root", Path | None, None, "folder of the downloaded data"),
        option("out", Path, Path(f"runs/{kind.name}.jsonl"), "JSONL file of records"),
        option("dry_run", bool, False, "say what there is to run and what it takes; run nothing"),
        option("card", str | None, None, f"of --dry-run: cpu, {', '.join(CARDS)}; this machine's"),
    ]
    if kind.name in DRAWINGS:
        some.append(option("pictures", Path | None, None, help["pictures"]))
    kept = "folder for each new run's trained tensors, and what each test picture came to"
    some.append(option("keep", Path | None, None, kept))
    return some + [option(name, *rest) for name, rest in CLUSTER.items()]


def settings_of(configs: Configs) -> dict[str, Any]:
    """The fields of a configuration and their types; of an optional one the type alone."""
    hints = get_type_hints(type(next(iter(configs.values()))))
    optional = (Union, types.UnionType)
    return {
        name: get_args(hint)[0] if get_origin(hint) in optional else hint
        for name, hint in hints.items()
    }


def setting_options(
    configs: Configs, swept: Collection[str] = tuple(SWEPT)
) -> list[inspect.Parameter]:
    """An option for each of them; one that takes several values takes them as one text.

    Args:
        configs: scale -> its settings.
        swept: the settings of which a command takes several.
    """
    found = []
    for name, hint in settings_of(configs).items():
        usual = {scale: getattr(config, name) for scale, config in configs.items()}
        help = next(iter(configs.values())).of(name, "help")
        help += "; one or several separated by commas" if name in swept else ""
        if any(value is not None for value in usual.values()):
            help += f"  [{'; '.join(f'{scale}: {value}' for scale, value in usual.items())}]"
        read_as = str if name in swept or get_origin(hint) is tuple else hint
        found.append(option(name, read_as | None, None, help))
    return found


def option(name: str, kind: Any, default: Any, help: str) -> inspect.Parameter:
    """A command's option as a parameter that Typer reads."""
    dashed = f"--{name.replace('_', '-')}"
    names = [f"{dashed}/--no-{dashed[2:]}"] if bool in get_args(kind) else [dashed]
    annotation = Annotated[kind, typer.Option(*names, help=help)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def plain_console(whole_lines: bool = False) -> Console:
    """Prints names as they are, with what Rich takes for styles in them: "[b]", ":cat:".

    Args:
        whole_lines: whether a line stays one however long it is, as who reads it by program wants.
    """
    quiet = not is_first_process()
    return Console(quiet=quiet, markup=False, emoji=False, highlight=False, soft_wrap=whole_lines)


def run_command(name: str, parameters: list[inspect.Parameter], options: dict[str, Any]) -> None:
    """What every lab command does: settings first, a line for each run, the table at the end."""
    kind = get_lab(name)
    console = plain_console()

    def tell(text: str) -> None:
        console.print(printable(text))

    def tell_record(record: Record, is_new: bool) -> None:
        with _complete(options["out"]):
            tell(run_line(kind.report, record, is_new))

    def tell_progress(progress: GridProgress) -> None:
        if progress.is_long:
            tell(str(progress))

    settings = settings_of(kind.configs)
    changes = {each: setting_value(kind.configs, each, options[each]) for each in settings}
    scale, out = options["scale"], options["out"]
    for config in swept_configs(kind.configs, scale, **changes):
        tell(f"Settings: {config}")
    datasets = options["dataset"]
    if datasets == "all":
        datasets = list(kind.datasets(scale))
    elif os.path.isdir(expanded(datasets)):
        datasets = [datasets]  # a folder may have a comma in its name
    else:
        datasets = _names(datasets)
    asked = (
        name,
        datasets,
        list(METHODS) if options["methods"] == "all" else _names(options["methods"]),
        _numbers(options[kind.unit], kind.unit),
        seeds_to(options["seeds"]),
        scale,
    )
    changes |= {"ratio": _numbers(options["ratio"], "ratio", float)}
    changes |= {"out": out, "root": options["root"]}
    if options["dry_run"]:
        some = {"card": options["card"], "keeps": options["keep"] is not None}
        for line in told(forecast(*asked, **some, **changes), options["card"]):
            tell(line)
        return
    records = run_lab(
        *asked,
        weights=options["weights"],
        on_record=tell_record,
        on_progress=tell_progress,
        doing=doing_of(**{name: options[name] for name in CLUSTER}),
        draw=_watching(name, options.get("pictures"), options["keep"]),
        command=command_line(kind, parameters, options),
        **changes,
    )
    chosen = {name: value for name, value in options.items() if name not in SOMEWHERE}
    with _complete(out):
        write_config(out.with_name(f"{out.stem}.config.yaml"), chosen)
        console.print(results_table(kind.report, records, paper_results()))
        if closing := kind.report.closing(records):
            tell(closing)
    tell(f"Records: {out}")


def doing_of(
    on: str | None, cpus_per_run: float, gpus_per_run: float | None, memory_per_run: float | None
) -> Callable[..., Iterator[Done]]:
    """How a command's runs are done, by its options of `CLUSTER`."""
    if on is None:
        return here
    return partial(on_ray, Share.named(on, cpus_per_run, gpus_per_run, memory_per_run))


@contextmanager
def _complete(out: Path) -> Iterator[None]:
    """Refuse what lacks something that every record of its lab has, and so was altered."""
    try:
        yield
    except KeyError as error:
        raise SerialLoRAError(
            f"A record in {out} lacks {error}; take its line out, or name another file with --out."
        ) from error


def command_line(
    kind: type[Lab], parameters: list[inspect.Parameter], options: dict[str, Any]
) -> str:
    """The command that asks for the same runs: what to run, and every option that was given."""
    always = ("dataset", "methods", kind.unit, "seeds")
    words = ["serial-lora", "lab", kind.name]
    for parameter in parameters:
        name, value = parameter.name, options[parameter.name]
        if name in SOMEWHERE or (value == parameter.default and name not in always):
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def _watching(name: str, pictures: Path | None, keep: Path | None) -> Draw | None:
    """What is done with a run that was just measured."""
    for folder in filter(None, (pictures, keep)):
        require_folder(folder)
    watching = [_drawing(name, pictures)] if pictures else []
    if keep:
        watching.append(partial(keep_run, keep))
    return partial(_each, watching) if watching else None


def _each(watching: list[Draw], *seen: Any) -> None:
    for watch in watching:
        watch(*seen)


def _drawing(name: str, folder: Path) -> Draw:
    # Loaded here: matplotlib takes a while, and most runs draw nothing.
    return partial(import_module(DRAWINGS[name]).draw_run, folder)


def setting_value(
    configs: Configs, name: str, given: Any, swept: Mapping[str, type] = SWEPT
) -> Any:
    """A setting as it was given on the command line; several values where it takes them."""
    if name in swept:
        return _numbers(given, name, swept[name])
    hint = settings_of(configs)[name]
    if given is None or get_origin(hint) is not tuple:
        return given
    return tuple(_numbers(given, name) if int in get_args(hint) else _names(given))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SerialLoRAError("An option that takes names was left empty; give at least one name.")
    return names


def _numbers(text: str | None, what: str, kind: Callable = int) -> list | None:
    """Numbers separated by commas; None where the option was not given."""
    try:
        return None if text is None else [kind(part) for part in _names(text)]
    except ValueError as error:
        whole = "whole numbers" if kind is int else "numbers"
        raise SerialLoRAError(
            f"The {what} must be {whole} separated by commas, not {text!r}."
        ) from error
