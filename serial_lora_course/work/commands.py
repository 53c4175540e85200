"""The commands for one's own pictures: ``serial-lora fit``, ``predict``, ``merge`` and ``show``."""

from __future__ import annotations

import csv
import inspect
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from serial_lora_course.files import ADAPTER_FILE, expanded, printable
from serial_lora_course.options import Command, Option, settings_of

MODELS = "timm/NAME, open_clip/NAME:WEIGHTS, a hub name, a folder"
LORA_PLUS = "plus_lr"  # a setting of the labs; `fit` has one rate for A and B


def fit_command() -> Command:
    """``serial-lora fit``; its options are those of a `Job` and of its configuration."""
    from serial_lora_course.work.job import ClassifyConfig, Job

    where = "folder of class folders, or of train and test with such inside"
    settings = settings_of({"": ClassifyConfig})
    options = [
        Option("pictures", str, where, required=True),
        Option("model", str, MODELS, "tiny-clip"),
        Option(
            "out", str, "folder for the classifier: new, or this command's own", "my_classifier"
        ),
        Option("weights", str, "file in place of the model's own weights"),
        Option("image_size", int, "side of the model's pictures in pixels, in place of its own"),
        Option("test_fraction", float, "share of each class to test on", Job.test_fraction),
        Option("validation_fraction", float, "of the rest, to choose by", Job.validation_fraction),
        Option("patience", int, "rounds without a better state before it stops", Job.patience),
        Option("seed", int, "of the training; the parts do not depend on it", Job.seed),
        Option("linear_probe", bool, "keep a logistic regression on the frozen features", False),
        *(each for each in settings if each.name != LORA_PLUS),
        Option("license", str, "the adapter's licence, for its card"),
    ]
    return Command(inspect.getdoc(fit), options, fit)


def fit(license: str | None, **chosen: Any) -> None:
    """Adapt a vision model to a folder with one sub-folder of pictures per class.

    Part of the training pictures choose the best state and say when to stop; the test pictures are
    looked at once, at the end. Run again, it goes on where it stopped. Into --out go the adapter, the
    head, a card and run.yaml, which --config reads.
    """
    from serial_lora_course.work.card import write_card
    from serial_lora_course.work.folder import fit_folder
    from serial_lora_course.work.job import ClassifyConfig, Job
    from serial_lora_course.work.report import read_classes

    settings = {each.name for each in fields(ClassifyConfig)} & chosen.keys()
    changed = {name: chosen[name] for name in settings if chosen[name] is not None}
    job = {name: value for name, value in chosen.items() if name not in settings}
    job = Job(**job, config=ClassifyConfig(**changed))

    def tell(step: int, measured: dict[str, float]) -> None:
        loss, right, left = (measured[name] for name in ("loss", "accuracy", "seconds_left"))
        told = f"validation loss {loss:.3f}, accuracy {right:.1%}"
        print(f"step {step}: {told}; at most {left / 60:.1f} minutes left", flush=True)

    reached = fit_folder(job, tell=tell)
    write_card(job, reached, license)
    lines = {
        "test pictures": reached.pictures["test"],
        "accuracy": f"{reached.test:.1%}",
        "logistic regression": f"{reached.probe:.1%} on the frozen features",
        "largest class": f"{reached.largest_class:.1%}",
        "kept": printable(
            f"the state of step {reached.best_step} of {reached.steps}, in {job.out}"
        ),
        "parameters": f"{reached.trained:,} trained, beside a model of {reached.total:,}",
    }
    _print_lines(lines)
    classes = read_classes(expanded(job.out))
    if classes is not None:
        print(f"\n{classes.to_string(float_format='{:.1%}'.format)}")
    if reached.probe > reached.test:
        warnings.warn(
            "the logistic regression is better; --linear-probe, in another --out, makes it the classifier.",
            stacklevel=2,
        )
    elif reached.best_step == reached.steps and reached.steps:
        warnings.warn("the last state was the best: more --epochs may be better.", stacklevel=2)


def predict(
    classifier: Annotated[Path, "folder that fit wrote"],
    pictures: Annotated[tuple[Path, ...], "picture files, or folders of them"],
    top: Annotated[int, "classes to name for each picture"] = 1,
    out: Annotated[Path | None, "CSV file of all probabilities; replaced"] = None,
) -> int:
    """Say which class pictures belong to, and how sure the classifier is.

    Exit code 2: a file could not be read; the others are answered all the same.
    """
    from serial_lora.errors import require_number
    from serial_lora.files import write_whole
    from serial_lora_course.grading.text import no_formula
    from serial_lora_course.work import folder

    require_number("top", top, whole=True, least=1)
    paths = list(picture_files(pictures))
    model, _ = folder.open_classifier(classifier)
    bad = []

    def unreadable(path: Path, error: Exception) -> None:
        bad.append(path)
        print(printable(f"serial-lora: {error}"), file=sys.stderr)

    shares = folder.predict(model, paths, unreadable=unreadable)
    for path, row in zip(paths, shares, strict=True):
        if path in bad:
            continue
        best = row.argsort(descending=True)[:top].tolist()
        named = ", ".join(f"{model.class_names[i]} {row[i]:.1%}" for i in best)
        print(printable(f"{path}: {named}"))
    if out is not None:
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(map(no_formula, ["picture", *model.class_names]))
        for path, row in zip(paths, shares.tolist(), strict=True):
            cells = [""] * len(row) if path in bad else [f"{share:.6f}" for share in row]
            writer.writerow([no_formula(str(path)), *cells])
        write_whole(expanded(out), table.getvalue().encode(errors="surrogateescape"))
    return 2 if bad else 0


def picture_files(given: tuple[Path, ...]) -> Iterator[Path]:
    """The pictures that are named, and those in the folders that are named."""
    from serial_lora.errors import SerialLoRAError
    from serial_lora_course.data.folder import pictures_below

    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = pictures_below(path, path)
        if not inside:
            raise SerialLoRAError(f"there are no pictures in {path}; name another folder.")
        yield from (path / name for name in inside)


def merge(
    classifier: Annotated[Path, "folder that fit wrote"],
    out: Annotated[Path, "folder; files of these names are replaced"] = Path("merged"),
    onnx: Annotated[bool, "model.onnx too"] = False,
) -> None:
    """Write the classifier with the adapter multiplied in, for use without this package.

    model.safetensors holds the weights and the head, config.json is the model's own library's, and
    classifier.json says what the classes are called and how pictures are prepared.
    """
    from serial_lora_course.work.merged import merge_into_folder

    for path in sorted(merge_into_folder(classifier, out, onnx).iterdir()):
        print(printable(f"{path}: {path.stat().st_size:,} bytes"))


def show(file: Annotated[Path, "adapter file, or folder that fit wrote"]) -> None:
    """Say what an adapter file holds: method, rank, places, and the base it belongs to."""
    from serial_lora.files import read_header
    from serial_lora_course.work.job import RUN_FILE, read_run

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
    if path.name == ADAPTER_FILE and (path.parent / RUN_FILE).exists():
        lines["model"] = read_run(path.parent)["model"]
    _print_lines(lines)


def _print_lines(lines: dict[str, object]) -> None:
    for what, said in lines.items():
        print(printable(f"{what:20} {said}"))
