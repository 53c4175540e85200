"""The commands for one's own pictures: ``serial-lora fit``, ``predict``, ``merge`` and ``show``."""

from __future__ import annotations

import inspect
import os
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from serial_lora_course.files import (
    ADAPTER_FILE,
    expanded,
    printable,
    refusals_told,
    write_json,
)
from serial_lora_course.options import Command
from serial_lora_course.work import Job, fit_options

FACTS_FILE = "classifier.json"
CLASSIFIER = Annotated[Path, "folder that fit wrote"]


def fit_command() -> Command:
    """``serial-lora fit``, whose options are a configuration's."""
    return Command(inspect.getdoc(fit), fit_options(), fit)


def fit(**chosen: Any) -> None:
    """Adapt a vision model to a folder with one sub-folder of pictures per class.

    A part of the training pictures is used for validation: it selects the best state and decides when to
    stop. The test pictures are used once, at the end. If interrupted, run the command again to resume.
    --out gets the adapter with the head, tables of the classes, a card and run.txt: `fit @OUT/run.txt` is
    the same command.
    """
    import pandas as pd

    from serial_lora_course.work.fit import fit_folder
    from serial_lora_course.work.reports import CLASSES_FILE, in_words

    job = Job(**{name: value for name, value in chosen.items() if value is not None})
    reached = fit_folder(job)
    classes = pd.read_csv(expanded(job.out) / CLASSES_FILE, dtype=str, keep_default_na=False)
    _print_lines(in_words(reached) | {"classifier": job.out})
    print(f"\n{classes.to_string(index=False)}")


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
    out: Annotated[Path, "new folder"] = Path("merged"),
) -> None:
    """Write the classifier with the adapter merged into its weights, for use without this package.

    model.safetensors holds the weights and the head, config.json is that of the model's own library, and
    classifier.json holds the class names and how pictures are prepared.
    """
    from safetensors.torch import save

    from serial_lora import SerialLoRAError, eject
    from serial_lora_course.work.classifier import open_classifier

    if os.path.lexists(out := expanded(out)):
        raise SerialLoRAError(f"{out} is there already; remove it, or give another --out.")
    model = eject(open_classifier(classifier), keep_merged=True)
    vision = model.vision
    if not isinstance(vision.head, str):  # a distilled DeiT's
        raise SerialLoRAError("this model has two heads, and merge replaces only one; use predict.")
    facts = {"class_names": model.class_names, "head": vision.head}
    facts["pictures"] = {"size": vision.size, "mean": vision.mean, "std": vision.std}
    head = {f"{vision.head}.1.{name}": tensor for name, tensor in model.head.state_dict().items()}
    state = {n: t.contiguous().clone() for n, t in (vision.model.state_dict() | head).items()}
    with refusals_told():
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=".merge-") as folder:
            new = Path(folder, out.name)
            new.mkdir()
            (new / "model.safetensors").write_bytes(save(state, {"format": "pt"}))
            vision.write_config(new, model.class_names)
            write_json(new / FACTS_FILE, facts)
            new.rename(out)
    for file in sorted(out.iterdir()):
        print(printable(f"{file}: {file.stat().st_size:,} bytes"))


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
        "base": f"fingerprint {sha256(saved.sample.encode()).hexdigest()[:12]}",
    }
    _print_lines(lines | saved.notes)


def _print_lines(lines: dict[str, Any]) -> None:
    print("\n".join(printable(f"{what:22} {said}") for what, said in lines.items()))
