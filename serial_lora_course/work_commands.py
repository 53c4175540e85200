"""The commands for one's own pictures: ``serial-lora fit``, ``predict``, ``merge`` and ``show``."""

from __future__ import annotations

import csv
import inspect
import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from serial_lora.errors import SerialLoRAError
from serial_lora.files import read_header, write_whole
from serial_lora_course.data.folder import pictures_below
from serial_lora_course.files import expanded, printable
from serial_lora_course.lab_options import option, plain_console, setting_options, setting_value
from serial_lora_course.labs.own import ADAPTER_FILE, ClassifyConfig
from serial_lora_course.work.best import Measured
from serial_lora_course.work.card import write_card
from serial_lora_course.work.folder import (
    RESULT_FILE,
    Job,
    fit_folder,
    merge_into_file,
    open_classifier,
    predict,
    read_run,
)

CONFIGS = {"default": ClassifyConfig()}
LORA_PLUS = "plus_lr"  # a setting of the labs; `fit` has one rate for A and B


def command(name: str) -> Any:
    """The command of that name."""
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name)({"fit": fit, "predict": ask, "merge": merge, "show": show}[name])
    return typer.main.get_command(one)


def fit(**options: Any) -> None:
    """Adapt a vision model to a folder with one sub-folder of pictures per class.

    Part of the training pictures choose the best state and say when to stop; the test pictures are
    looked at once, at the end. Run again, it goes on where it stopped. Into --out go the adapter, the
    head, a card and run.yaml, which --config reads.
    """
    settings = {
        name: setting_value(CONFIGS, name, options[name], swept={})
        for name in (each.name for each in fields(ClassifyConfig) if each.name != LORA_PLUS)
    }
    changed = {name: value for name, value in settings.items() if value is not None}
    own = {each.name for each in fields(Job)} - {"config"}
    job = Job(
        **{name: options[name] for name in own & options.keys()}, config=ClassifyConfig(**changed)
    )
    console = plain_console(whole_lines=True)

    def tell(step: int, measured: Measured) -> None:
        console.print(
            f"step {step}: validation loss {measured['loss']:.3f}, {measured['accuracy']:.1%} right",
        )

    reached = fit_folder(job, tell=tell)
    write_card(job, reached, options["license"])
    console.print(
        f"{reached.test:.1%} of {reached.pictures['test']} test pictures are right; a logistic "
        f"regression on the frozen features gets {reached.probe:.1%}, always naming the largest "
        f"class {reached.largest_class:.1%}.\nThe state of step {reached.best_step} of "
        f"{reached.steps} was kept in {job.out}: {reached.trained:,} trained parameters beside a "
        f"model of {reached.total:,}.",
    )


fit.__signature__ = inspect.Signature(
    [
        inspect.Parameter(
            "pictures",
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[
                str,
                typer.Argument(
                    help="folder of class folders, or of train and test with such inside"
                ),
            ],
        ),
        option(
            "model", str, "tiny-clip", "timm/NAME, open_clip/NAME:WEIGHTS, a hub name, a folder"
        ),
        option(
            "out", str, "my_classifier", "folder for the classifier: new, or this command's own"
        ),
        option("weights", str | None, None, "safetensors file in place of the model's own weights"),
        option("test_fraction", float, Job.test_fraction, "share of each class that is tested on"),
        option("validation_fraction", float, Job.validation_fraction, "of the rest, to choose by"),
        option("patience", int, Job.patience, "rounds without a better state before it stops"),
        option("seed", int, Job.seed, "of the training; the parts do not depend on it"),
        *(each for each in setting_options(CONFIGS, swept={}) if each.name != LORA_PLUS),
        option("license", str | None, None, "the adapter's licence, for its card"),
    ]
)


def ask(
    classifier: Annotated[Path, typer.Argument(help="folder that fit wrote")],
    pictures: Annotated[list[Path], typer.Argument(help="picture files, or folders of them")],
    top: Annotated[int, typer.Option(min=1, help="classes to name for each picture")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="CSV file of all probabilities; replaced")
    ] = None,
) -> None:
    """Say which class each picture belongs to, and how sure the classifier is."""
    paths = list(_picture_files(pictures))
    model, _ = open_classifier(classifier)
    shares = predict(model, paths)
    console = plain_console(whole_lines=True)
    for path, row in zip(paths, shares, strict=True):
        best = row.argsort(descending=True)[:top].tolist()
        named = ", ".join(f"{model.class_names[i]} {row[i]:.1%}" for i in best)
        console.print(printable(f"{path}: {named}"))
    if out is not None:
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["picture", *model.class_names])
        writer.writerows(
            [str(path), *(f"{share:.6f}" for share in row.tolist())]
            for path, row in zip(paths, shares, strict=True)
        )
        write_whole(expanded(out), table.getvalue().encode(errors="surrogateescape"))


def _picture_files(given: list[Path]) -> Iterator[Path]:
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = pictures_below(path, path)
        if not inside:
            raise SerialLoRAError(f"there are no pictures in {path}; name another folder.")
        yield from (path / name for name in inside)


def merge(
    classifier: Annotated[Path, typer.Argument(help="folder that fit wrote")],
    out: Annotated[Path, typer.Option(help="safetensors file; replaced")] = Path(
        "merged.safetensors"
    ),
) -> None:
    """Write the model's weights with the adapter multiplied in, for use without this package."""
    path = merge_into_file(classifier, out)
    plain_console(whole_lines=True).print(f"{path}: {path.stat().st_size:,} bytes")


def show(
    file: Annotated[Path, typer.Argument(help="adapter file, or folder that fit wrote")],
) -> None:
    """Say what an adapter file holds: method, rank, places, and the base it belongs to."""
    path = file / ADAPTER_FILE if file.is_dir() else file
    saved = read_header(path)
    config, widths = saved.config, sorted(set(saved.targets.values()))
    lines = {
        "file": f"{path}, {path.stat().st_size:,} bytes",
        "method": f"{config.method}, rank {config.rank}, scale {config.scale:g}",
        "places": f"{len(saved.targets)} attention blocks of width {', '.join(map(str, widths))}",
        "first, last": f"{next(iter(saved.targets))}, {list(saved.targets)[-1]}",
        "base": f"fingerprint {saved.base[:12]}",
        "written by": f"serial-lora {saved.library_version}",
    }
    if (path.parent / RESULT_FILE).exists():
        lines["model"] = read_run(path.parent)["model"]
    console = plain_console(whole_lines=True)
    for what, said in lines.items():
        console.print(printable(f"{what:12} {said}"))
