"""From a folder of class folders to a classifier: a split, a probe, a training, one look at the test pictures.

reached = fit_folder(Job(pictures="my_pictures", model="tiny-clip", out="my_classifier"))
reached["test accuracy"], reached["logistic regression"]
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, classification_report, confusion_matrix
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from tqdm import tqdm

from serial_lora import SerialLoRAConfig, count_parameters, inject, load_adapter
from serial_lora.errors import SerialLoRAError
from serial_lora.files import read_header, write_whole
from serial_lora_course.data.folder import COPY_OF, examine_folder, load_folder
from serial_lora_course.data.subsets import SPLIT_SEED, hash_order
from serial_lora_course.data.types import ClassificationData, Pictures
from serial_lora_course.files import ADAPTER_FILE, expanded, printable, refusals_told, write_json
from serial_lora_course.grading.text import no_formula
from serial_lora_course.labs.device import this_device
from serial_lora_course.labs.training import ExampleStream, OnPicture, Opened, train
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.clip import build_train_transform
from serial_lora_course.models.weights import weights_fingerprint
from serial_lora_course.options import as_yaml
from serial_lora_course.plots.style import save_figure
from serial_lora_course.work.classifier import (
    PictureClassifier,
    encode,
    load_vision,
    save_classifier,
)
from serial_lora_course.work.job import Job

RUN_FILE, RECORD_FILE, UNFINISHED, LOCK = "run.yaml", "record.json", "unfinished.pt", ".lock"
CLASSES_FILE = "classes.csv"
CARD = """---
library_name: serial-lora
tags: [serial-lora, image-classification]
---

# {name}

An adapter and a linear head for `{model}`. `serial-lora predict {name} picture.png` says which class a
picture belongs to: {classes}. Model and pictures have licences of their own.

| | |
|---|---|
{rows}
"""
LONG = 5  # minutes, of which a note is worth its line


def fit_folder(job: Job) -> dict[str, Any]:
    """Train an adapter and a head, keep the best state by the validation pictures, and test it once.

    An interrupted training goes on where it stopped, and a finished one is not run again. Neither is
    taken for one with other options, pictures, classes or weights.

    Returns:
        What was reached, as the record and the card in ``out`` say it.

    Raises:
        SerialLoRAError: ``out`` holds the classifier of another job, or another process is at it, or as
            `load_folder`, `load_vision` and `train`.
    """
    out = expanded(job.out)
    with refusals_told():
        out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(out / LOCK, timeout=0):  # the system frees it, however a process ends
                return _fit_alone(job, out)
        except Timeout as error:
            raise SerialLoRAError(
                f"another process is training into {out}; wait until it ends, and the same command says "
                "what came of it, or give another --out."
            ) from error


def _fit_alone(job: Job, out: Path) -> dict[str, Any]:
    data = load_folder(job.pictures, job.test_fraction, class_name=str)
    vision = load_vision(job.model, job.weights, job.image_size)
    options = as_yaml(asdict(job))
    made_from = {
        "options": options.decode(),
        "class folders": data.class_names,
        "pictures": data.picture_fingerprint(),
        "model's weights": weights_fingerprint([vision.model]),
    }
    reached = _claimed(out, made_from)
    write_whole(out / RUN_FILE, options)
    if reached is None:
        facts = examine_folder(job.pictures)
        for row in facts[facts["remark"].str.contains(COPY_OF)].itertuples():
            warnings.warn(f"{row.file}: {row.remark}.", stacklevel=3)
        classifier = PictureClassifier(vision, data.class_names).to(this_device())
        reached = _fitted(classifier, data, job, out)
        write_json(out / RECORD_FILE, {"made_from": made_from, "reached": reached})
    (out / UNFINISHED).unlink(missing_ok=True)  # not before: until here it is what goes on
    write_card(job, data.class_names, reached)
    return reached


def _claimed(out: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """What was reached already by a training into a folder, which is refused if it is another's."""
    path, inside = out / RECORD_FILE, {each.name for each in out.iterdir()} - {LOCK}
    if inside and RECORD_FILE not in inside:
        raise SerialLoRAError(f"{out} holds other files; give --out a folder of its own.")
    if inside <= {RECORD_FILE, RUN_FILE}:  # nothing has come of it yet
        write_json(path, {"made_from": made_from, "reached": None})
        return None
    record = json.loads(path.read_text("utf-8"))
    begun = record["made_from"]
    changed = [what for what, is_now in made_from.items() if begun[what] != is_now]
    if changed:
        raise SerialLoRAError(
            f"the {' and the '.join(changed)} have changed since {out} was begun; give another --out, "
            "or delete the folder to train anew."
        )
    return record["reached"]


def _fitted(
    classifier: PictureClassifier, data: ClassificationData, job: Job, out: Path
) -> dict[str, Any]:
    """Train, save the best state, and measure it."""
    parts = divide(data.train, job.validation_fraction) | {"test": data.test}
    sizes = {f"{name} pictures": len(part) for name, part in parts.items()}
    _tell_if_long(classifier, job, len(parts["train"]))
    known = {name: encode(classifier, part) for name, part in parts.items()}
    features = {name: (found.numpy(), of.numpy()) for name, (found, _, of) in known.items()}
    weighting = "balanced" if job.balanced else None
    probes = [
        LogisticRegression(C=c, max_iter=5000, class_weight=weighting).fit(*features["train"])
        for c in (0.001, 0.01, 0.1, 1.0)
    ]
    probe = max(probes, key=lambda each: each.score(*features["validation"]))

    torch.manual_seed(job.seed)
    config = SerialLoRAConfig(job.rank, job.scale_factor, job.dropout, ["image"], job.blocks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the running statistics")  # the classifier keeps them
        inject(classifier, config, also_train=["head"])
    count = count_parameters(classifier)
    if job.linear_probe:
        first = len(data.class_names) - len(probe.coef_)  # of two classes, it scores the second
        with torch.no_grad():
            classifier.head.weight[first:] = torch.from_numpy(probe.coef_)
            classifier.head.bias[first:] = torch.from_numpy(probe.intercept_)
        steps, best = 0, {"step": 0, "accuracy": float(probe.score(*features["validation"]))}
        save_classifier(classifier, out)
    else:
        classes, labels = np.arange(len(data.class_names)), parts["train"].labels
        weights = compute_class_weight(weighting, classes=classes, y=labels)
        objective = Objective(classifier, torch.tensor(weights).float())
        steps, best = _trained(objective, parts, job, out)

    load_adapter(classifier, out / ADAPTER_FILE)
    _, scores, labels = encode(classifier, data.test)
    write_reports(out, data.class_names, labels.numpy(), scores.argmax(-1).numpy())
    return {
        "test accuracy": accuracy(scores, labels),
        "logistic regression": float(probe.score(*features["test"])),
        "largest class": labels.bincount().max().item() / len(labels),
        "validation accuracy": best["accuracy"],
        "best step": best["step"],
        "steps": steps,
        **sizes,
        "division": data.split,
        "parameters trained": count.trainable,
        "parameters frozen": count.total - count.trainable,
    }


class Objective(nn.Module):
    """Mean cross-entropy of pictures (B, 3, size, size) and labels (B,), by what each class counts (C,)."""

    def __init__(self, classifier: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.classifier, self.loss = classifier, nn.CrossEntropyLoss(weights)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, labels = batch
        return self.loss(self.classifier(pictures).float(), labels)


def _trained(
    objective: Objective, parts: dict[str, Pictures], job: Job, out: Path
) -> tuple[int, dict[str, float]]:
    """Train, and save what is best after a round; the steps, and what the best was.

    The loss decides, since few pictures have few different accuracies. What was best before an
    interruption stands in the classifier's file.
    """
    classifier, count = objective.classifier, len(parts["train"])
    steps, batch = job.steps(count), min(job.batch_size, count)
    every = math.ceil(count / batch)
    best = {"step": 0, "loss": math.inf}
    if (out / ADAPTER_FILE).exists():
        best = json.loads(read_header(out / ADAPTER_FILE).notes["best"])

    def over(step: int) -> bool:
        nonlocal best
        if step % every and step != steps:
            return False
        with torch.random.fork_rng():  # a loader draws a number, and the training must not miss it
            _, scores, labels = encode(classifier, parts["validation"])
        classifier.train()
        loss = nn.functional.cross_entropy(scores, labels, objective.loss.weight.cpu()).item()
        if not math.isfinite(loss):
            raise SerialLoRAError(
                f"after step {step} the validation loss is {loss}; train with a smaller --lr, in "
                "another --out."
            )
        right = accuracy(scores, labels)
        tqdm.write(f"step {step} of {steps}: validation loss {loss:.3f}, accuracy {right:.1%}")
        if loss < best["loss"]:
            best = {"step": step, "loss": loss, "accuracy": right}
            save_classifier(classifier, out, best=best)
        return step - best["step"] >= job.patience * every

    see = classifier.vision
    way_in = OnPicture(build_train_transform(see.size, (job.crop, 1.0), see.mean, see.std))
    stream = ExampleStream(Opened(parts["train"]), range(count), way_in, job.seed, batch, steps)
    config = job.training(steps, seed=job.seed)
    what = "adapter and head"
    history = train(objective, stream, config, out / UNFINISHED, what, after_step=over)
    return len(history.losses), best


def divide(pictures: Pictures, fraction: float) -> dict[str, Pictures]:
    """Training and validation pictures: a share of each class, by a hash of the names.

    Raises:
        SerialLoRAError: a class has only one picture to train with.
    """
    chosen: dict[str, list[int]] = {"train": [], "validation": []}
    order = hash_order(pictures.picture_ids, SPLIT_SEED, "validation")
    for label in sorted(set(pictures.labels)):
        own = [position for position in order if pictures.labels[position] == label]
        if len(own) < 2:
            raise SerialLoRAError(
                f"the class of {pictures.picture_ids[own[0]]} has one picture to train with, and "
                "needs one more that says when to stop; add pictures."
            )
        count = min(max(round(fraction * len(own)), 1), len(own) - 1)
        chosen["validation"] += own[:count]
        chosen["train"] += own[count:]
    return {name: pictures.some(sorted(positions)) for name, positions in chosen.items()}


def _tell_if_long(classifier: PictureClassifier, job: Job, pictures: int) -> None:
    """A note of how long a training on so many pictures may take, where that is minutes."""
    batch, steps, side = min(job.batch_size, pictures), job.steps(pictures), classifier.vision.size
    started = time.monotonic()
    with torch.no_grad():
        classifier(torch.zeros(1, 3, side, side, device=classifier.head.weight.device))
    step = 3 * batch * (time.monotonic() - started)  # the way back costs twice the way there
    if step * steps / 60 > LONG:
        warnings.warn(
            f"a step of {batch} pictures of {side} x {side} takes about {step:.1f} seconds, and all {steps} "
            f"some {step * steps / 60:.0f} minutes; a smaller --image-size or model, or a GPU, is faster.",
            stacklevel=5,
        )


def write_reports(
    out: Path, class_names: Sequence[str], labels: np.ndarray, found: np.ndarray
) -> None:
    """Write classes.csv, confusion.csv and confusion.png of labels, true and found, (N,) each."""
    known, names = range(len(class_names)), [no_formula(printable(name)) for name in class_names]
    options = dict(labels=known, target_names=names, output_dict=True, zero_division=0)
    shares = classification_report(labels, found, **options)
    table = pd.DataFrame({name: shares[name] for name in names}).T.astype({"support": int})
    matrix = confusion_matrix(labels, found, labels=known)
    counts = pd.DataFrame(matrix, pd.Index(names, name="true class"), names)
    for name, each in {CLASSES_FILE: table, "confusion.csv": counts}.items():
        write_whole(out / name, each.to_csv(float_format="%.4f").encode())
    figure = Figure(figsize=[3 + 0.4 * len(names)] * 2, layout="constrained")
    shown = ConfusionMatrixDisplay(matrix, display_labels=[n.replace("$", r"\$") for n in names])
    shown.plot(ax=figure.subplots(), xticks_rotation="vertical", colorbar=False, cmap="Blues")
    save_figure(figure, out / "confusion.png")


def in_words(reached: Mapping[str, float | str]) -> dict[str, str]:
    """What a fit reached; a number with a fraction is a share of pictures."""
    kinds = {float: "{:.1%}", int: "{:,}", str: "{}"}
    return {what: kinds[type(value)].format(value) for what, value in reached.items()}


def write_card(job: Job, class_names: Sequence[str], reached: Mapping[str, float | str]) -> None:
    """Write README.md beside the classifier, unless one is there; it names no folder of this machine."""
    path, model = expanded(job.out) / "README.md", expanded(job.model)
    text = CARD.format(
        name=printable(path.resolve().parent.name),
        model=model.resolve().name if model.is_dir() else job.model,
        classes=", ".join(map(printable, class_names)),
        rows="\n".join(f"| {what} | {said} |" for what, said in in_words(reached).items()),
    )
    if not path.exists():
        write_whole(path, text.encode())
    elif path.read_bytes() != text.encode():
        warnings.warn(f"{path} is kept as it is; delete it to have it written anew.", stacklevel=2)
