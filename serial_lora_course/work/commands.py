"""The commands for one's own pictures: ``serial-lora fit``, ``predict``, ``merge`` and ``show``."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from serial_lora_course.files import (
    ADAPTER_FILE,
    alone,
    expanded,
    printable,
    refusals_told,
    without_leftovers,
    write_json,
)
from serial_lora_course.options import Command, Option, settings_of
from serial_lora_course.work import Job

FACTS_FILE = "classifier.json"
OTHERS_FILES = ("model.onnx", "preprocessor_config.json", "config.json", FACTS_FILE)
"""Of an older merged classifier, what would tell or show its classes beside the new one's weights."""
CLASSIFIER = Annotated[Path, "folder that fit wrote"]


def fit_command() -> Command:
    """``serial-lora fit``; its options are a `Job`'s, with one rate for A and B."""
    pictures = Option("pictures", str, Job.of("pictures", "help"), required=True)
    others = [each for each in settings_of({"": Job}) if each.name not in ("pictures", "plus_lr")]
    return Command(inspect.getdoc(fit), [pictures, *others], fit)


def fit(**chosen: Any) -> None:
    """Adapt a vision model to a folder with one sub-folder of pictures per class.

    A part of the training pictures is used for validation: it selects the best state and decides when to
    stop. The test pictures are used once, at the end. If interrupted, run the command again to resume.
    --out gets the adapter with the head, tables of the classes, a card and run.yaml, which --config reads.
    """
    import pandas as pd
    from scipy.stats import binomtest

    from serial_lora.errors import SerialLoRAError
    from serial_lora_course.work.fit import fit_folder
    from serial_lora_course.work.reports import CLASSES_FILE, in_words

    job = Job(**{name: value for name, value in chosen.items() if value is not None})
    reached = fit_folder(job)
    table = expanded(job.out) / CLASSES_FILE
    try:
        classes = pd.read_csv(table, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' own are of that kind
        raise SerialLoRAError(f"{table} is damaged; give another --out.") from error
    _print_lines(in_words(reached) | {"classifier": job.out})
    print(f"\n{classes.to_string(index=False)}")
    ours, its = (reached.get(f"only {which} right", 0) for which in ("adapter", "regression"))
    # Were both equally good, these would be as heads and tails.
    if its > ours and binomtest(ours, ours + its).pvalue < 0.05:
        print("\nThe logistic regression is better: --linear-probe, in another --out, keeps it.")


def predict(
    classifier: CLASSIFIER,
    pictures: Annotated[tuple[Path, ...], "picture files, or folders of them"],
    top: Annotated[int, "number of classes to print for each picture"] = 1,
    out: Annotated[Path | None, "CSV file for all probabilities; replaced if it exists"] = None,
) -> int:
    """Print the most likely class of each picture, with its probability.

    Exit code 2: a file could not be read; the others are still classified.
    """
    import pandas as pd

    from serial_lora.errors import SerialLoRAError, require_number
    from serial_lora.files import write_whole
    from serial_lora_course.data.folder import pictures_below
    from serial_lora_course.grading.text import no_formula
    from serial_lora_course.work import classifier as work

    require_number("top", top, whole=True, least=1)
    folders = {path: pictures_below(path, path) for path in pictures if path.is_dir()}
    if empty := [path for path, inside in folders.items() if not inside]:
        raise SerialLoRAError(f"there are no pictures in {empty[0]}; name another folder.")
    paths = [path / name for path in pictures for name in folders.get(path, [""])]
    model = work.open_classifier(classifier)
    shares = work.predict(model, paths)
    for path, row in zip(paths, shares, strict=True):
        best = row.argsort(descending=True)[:top]
        named = [f"{model.class_names[i]} {row[i]:.1%}" for i in best if not row[i].isnan()]
        if named:
            print(printable(f"{path}: {', '.join(named)}"))
    if out is not None:
        names = pd.Index([no_formula(str(path)) for path in paths], name="picture")
        table = pd.DataFrame(shares.numpy(), names, list(map(no_formula, model.class_names)))
        content = table.to_csv(float_format="%.6f").encode(errors="surrogateescape")
        write_whole(expanded(out), content)
    return 2 if shares.isnan().any() else 0


def merge(
    classifier: CLASSIFIER,
    out: Annotated[Path, "output folder; replaces a classifier that is there"] = Path("merged"),
    onnx: Annotated[bool, "also write model.onnx"] = False,
) -> None:
    """Write the classifier with the adapter merged into its weights, for use without this package.

    model.safetensors holds the weights and the head, config.json is that of the model's own library, and
    classifier.json holds the class names and how pictures are prepared. model.onnx takes
    pictures (N, 3, size, size) and gives probabilities (N, classes).
    """
    from serial_lora import SerialLoRAError, eject

    missing = [each for each in ("onnx", "onnxscript") if not importlib.util.find_spec(each)]
    if onnx and missing:
        raise SerialLoRAError(f"--onnx needs more packages: pip install {' '.join(missing)}.")
    from safetensors.torch import save

    from serial_lora_course.work.classifier import open_classifier

    model, out = eject(open_classifier(classifier), keep_merged=True), expanded(out)
    vision = model.vision
    if not isinstance(vision.head, str):  # a distilled DeiT's
        raise SerialLoRAError("this model has two heads, and merge replaces only one; use predict.")
    facts = {"class_names": model.class_names, "head": vision.head}
    facts["pictures"] = {"size": vision.size, "mean": vision.mean, "std": vision.std}
    head = {f"{vision.head}.1.{name}": tensor for name, tensor in model.head.state_dict().items()}
    state = {n: t.contiguous().clone() for n, t in (vision.model.state_dict() | head).items()}
    weights = {"model.safetensors": save(state, {"format": "pt"})}
    with refusals_told(), TemporaryDirectory() as new:
        if onnx:
            weights["model.onnx"] = _as_onnx(model, Path(new, "model.onnx"))
        vision.write_config(Path(new), model.class_names)
        write_json(Path(new, FACTS_FILE), facts)
        files = sorted(each for each in Path(new).iterdir() if each.name not in weights)
        told = {each.name: each.read_bytes() for each in reversed(files)}  # the classes come last
        _replace_merged(out, weights, told)


def _replace_merged(out: Path, weights: dict[str, bytes], told: dict[str, bytes]) -> None:
    """Write a merged classifier, also over an older one.

    The new weights are on the disk before anything of the older one goes. Then what tells of the weights
    goes first and comes last: whoever reads meanwhile, or after a kill, finds one's classes with its own
    weights, or none.

    Args:
        weights, told: name of a file -> its content.
    """
    from serial_lora.files import write_whole

    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with alone(out / ".lock", f"another process is merging into {out}; wait until it ends."):
            without_leftovers(out)  # of a merge that was killed
            waiting = {name: out / f".{name}.partial" for name in weights}
            for name, file in waiting.items():
                write_whole(file, weights[name])
            for name in OTHERS_FILES if (out / FACTS_FILE).exists() else told:
                (out / name).unlink(missing_ok=True)
            for name, file in waiting.items():
                file.replace(out / name)
            for name, content in told.items():
                write_whole(out / name, content)
    except BaseException:
        without_leftovers(out)
        if new:
            with suppress(OSError):  # no longer empty: somebody else's files stay
                out.rmdir()
        raise
    for name, content in (weights | told).items():
        print(printable(f"{out / name}: {len(content):,} bytes"))


def _as_onnx(model: Any, file: Path) -> bytes:
    """Pictures (N, 3, size, size) -> probabilities (N, classes), whatever N is."""
    import torch

    with warnings.catch_warnings(action="ignore"):  # of PyTorch about its own parts
        torch.onnx.export(
            torch.nn.Sequential(model, torch.nn.Softmax(-1)).eval(),
            (torch.rand(2, 3, model.vision.size, model.vision.size),),
            file,
            input_names=["pictures"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("pictures", min=1)},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    return file.read_bytes()


def show(file: Annotated[Path, "adapter file, or folder that fit wrote"]) -> None:
    """Print what an adapter file holds: method, rank, places, and the base model it belongs to."""
    from serial_lora.files import read_header

    path = file / ADAPTER_FILE if file.is_dir() else file
    saved = read_header(path)
    config, targets = saved.config, list(saved.targets)
    places = " and ".join(config.places).replace("_", "-")
    lines = {
        "file": f"{path}, {path.stat().st_size:,} bytes, by serial-lora {saved.library_version}",
        "method": f"{config.method}, rank {config.rank}, scale {config.scale:g}",
        f"{places} blocks": f"{len(targets)}, {targets[0]} to {targets[-1]}",
        "base": f"fingerprint {saved.base[:12]}",
    }
    _print_lines(lines | saved.notes)


def _print_lines(lines: dict[str, Any]) -> None:
    print("\n".join(printable(f"{what:22} {said}") for what, said in lines.items()))
