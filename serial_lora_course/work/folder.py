"""From a folder of class folders to a classifier, and what is done with one afterwards.

reached = fit_folder(Job(pictures="my_pictures", model="tiny-clip", out="my_classifier"))
classifier, run = open_classifier("my_classifier")
predict(classifier, ["a.png", "b.png"])
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from serial_lora import adapters, count_parameters, eject, inject
from serial_lora.errors import SerialLoRAError, require_number
from serial_lora.files import write_whole
from serial_lora_course.data.folder import load_folder
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.splits import SPLIT_SEED
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.data.types import Pictures
from serial_lora_course.files import expanded, write_json
from serial_lora_course.labs.linear_probe import Features, chosen_probe_accuracy
from serial_lora_course.labs.own import (
    ClassifyConfig,
    PictureClassifier,
    accuracy_on,
    encode,
    fit,
    load_classifier,
)
from serial_lora_course.work.best import KeepBest, Measured
from serial_lora_course.work.vision import load_vision

RUN_FILE, RESULT_FILE, UNFINISHED = "run.yaml", "reached.json", "unfinished.pt"


@dataclass(frozen=True)
class Job:
    """All that decides a training on a folder; kept as ``run.yaml`` beside what came of it.

    Attributes:
        pictures: folder with one sub-folder per class (or train and test with such inside).
        model: a name that :func:`serial_lora_course.work.vision.load_vision` knows.
        weights: a file in place of the model's own weights.
        out: folder of the classifier.
        test_fraction: share of each class that is tested on; validation_fraction: of the rest,
            share that chooses the best state.
        patience: rounds without a better state after which training stops.
        config: how to train.
    """

    pictures: str
    model: str
    out: str
    weights: str | None = None
    test_fraction: float = 0.3
    validation_fraction: float = 0.2
    patience: int = 5
    seed: int = 1
    config: ClassifyConfig = field(default_factory=ClassifyConfig)

    def __post_init__(self) -> None:
        for name in ("test_fraction", "validation_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise SerialLoRAError(
                    f"{name} must lie between 0 and 1, not {getattr(self, name)}."
                )
        require_number("patience", self.patience, whole=True, least=1)
        require_number("seed", self.seed, whole=True, least=0)

    def as_yaml(self) -> str:
        """Flat, as ``--config`` reads it; settings that are None are left out."""
        whole = asdict(self)
        whole |= whole.pop("config")
        flat = {k: list(v) if isinstance(v, tuple) else v for k, v in whole.items()}
        return yaml.safe_dump({k: v for k, v in flat.items() if v is not None}, sort_keys=False)


@dataclass(frozen=True)
class Reached:
    """What came of a training; shares of pictures are between 0 and 1."""

    data: str
    class_names: list[str]
    pictures: dict[str, int]
    split: str
    best_step: int
    steps: int
    seconds: float
    validation: float
    test: float
    probe: float
    largest_class: float
    trained: int
    total: int


def fit_folder(
    job: Job,
    progress: bool | None = None,
    tell: Callable[[int, Measured], object] = lambda step, measured: None,
) -> Reached:
    """Train an adapter and a head, keep the best state by the validation pictures, and test it once.

    An interrupted training goes on where it stopped, and a finished one is not run again.

    Args:
        tell: called after each round with the step and what the validation pictures say.

    Raises:
        SerialLoRAError: ``out`` holds the classifier of another job, or as `load_folder`,
            `load_vision` and `fit`.
    """
    out = expanded(job.out)
    data = load_folder(job.pictures, job.test_fraction)
    _claim(out, job)
    if (out / RESULT_FILE).exists():
        return _earlier(out, data.picture_fingerprint())
    parts = divide(data.train, job.validation_fraction) | {"test": data.test}
    classifier = PictureClassifier(load_vision(job.model, _file(job.weights)), data.class_names)
    probe = linear_probe(classifier, parts)
    config = job.config
    torch.manual_seed(job.seed)
    inject(classifier.model, config.adapter())
    steps = config.steps(len(parts["train"]))
    a_round = -(-len(parts["train"]) // min(config.batch_size, len(parts["train"])))
    best = KeepBest(classifier, parts["validation"], out, steps, a_round, job.patience, tell)
    count = count_parameters(classifier.model)
    history = fit(
        classifier,
        parts["train"],
        config,
        seed=job.seed,
        save_to=out / UNFINISHED,
        progress=progress,
        after_step=best,
    )
    eject(classifier.model)
    classifier = load_classifier(classifier.model, out)
    labels = Counter(data.test.labels)
    reached = Reached(
        data=data.picture_fingerprint(),
        class_names=data.class_names,
        pictures={name: len(part) for name, part in parts.items()},
        split=data.split,
        best_step=best.best_step,
        steps=len(history.losses),
        seconds=round(history.seconds, 1),
        validation=best.measured[best.best_step]["accuracy"],
        test=accuracy_on(classifier, data.test),
        probe=probe,
        largest_class=max(labels.values()) / len(data.test),
        trained=count.adapter + sum(p.numel() for p in classifier.head.parameters()),
        total=count.total - count.adapter,
    )
    write_json(out / RESULT_FILE, asdict(reached))
    return reached


def _earlier(out: Path, data: str) -> Reached:
    """What a finished training reached on these pictures."""
    try:
        reached = Reached(**json.loads((out / RESULT_FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SerialLoRAError(
            f"{out / RESULT_FILE} cannot be read ({error}); delete the folder to train anew."
        ) from error
    if reached.data != data:
        raise SerialLoRAError(
            f"the pictures have changed since {out} was made; give another --out, or delete it."
        )
    return reached


def _claim(out: Path, job: Job) -> None:
    """Write the job into its folder, unless that holds another's work; a bare run.yaml is none."""
    path, content = out / RUN_FILE, job.as_yaml().encode()
    inside = {each.name for each in out.iterdir()} if out.exists() else set()
    if inside and RUN_FILE not in inside:
        raise SerialLoRAError(f"{out} holds other files; give --out a folder of its own.")
    if inside > {RUN_FILE} and path.read_bytes() != content:
        raise SerialLoRAError(
            f"{out} holds the classifier of another run ({path} says which); give another "
            "--out, or delete the folder."
        )
    write_whole(path, content)


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


def linear_probe(classifier: PictureClassifier, parts: dict[str, Pictures]) -> float:
    """Test accuracy of a linear probe on the classifier's features, before it is adapted.

    Args:
        parts: the pictures ``train``, ``validation`` and ``test``.
    """
    known: dict[str, Features] = {}
    for name, part in parts.items():
        features, _, labels = encode(classifier, part)
        known[name] = features.numpy(), labels.numpy()
    return chosen_probe_accuracy(known["train"], known["validation"], known["test"])


# -------------------------------------------------------------------------------- afterwards


def read_run(folder: str | Path) -> dict:
    """What the run.yaml of a classifier's folder says.

    Raises:
        SerialLoRAError: there is none, or it names no model.
    """
    path = expanded(folder) / RUN_FILE
    try:
        run = yaml.safe_load(path.read_text("utf-8"))
        if isinstance(run["model"], str) and isinstance(run.get("weights"), str | None):
            return run
        error: object = "it names no model"
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, RecursionError) as raised:
        error = getattr(raised, "strerror", None) or raised
    raise SerialLoRAError(
        f"{path} is missing or not what `serial-lora fit` wrote ({error}); name the folder "
        "that it was given as --out."
    )


def open_classifier(folder: str | Path) -> tuple[PictureClassifier, dict]:
    """A classifier that `fit_folder` made, with its model, and what its run.yaml says.

    Raises:
        SerialLoRAError: as `read_run`, or its model cannot be loaded.
    """
    run = read_run(folder)
    model = load_vision(run["model"], _file(run.get("weights")))
    return load_classifier(model, expanded(folder)), run


def predict(
    classifier: PictureClassifier, paths: Sequence[str | Path], batch_size: int = 64
) -> torch.Tensor:
    """Probabilities (N, C) of picture files.

    Raises:
        SerialLoRAError: there is no file, or one that is no picture.
    """
    read = partial(read_picture, upright=True)
    pictures = Pictures(list(map(str, paths)), read, paths, labels=[0] * len(paths))
    _, scores, _ = encode(classifier, pictures, batch_size)  # whatever the labels are
    return scores.softmax(-1)


def merge_into_file(folder: str | Path, out: str | Path) -> Path:
    """Write the model's state dict with the adapter multiplied into its weights, as safetensors.

    Raises:
        SerialLoRAError: as :func:`open_classifier`, or the adapter cannot be merged.
    """
    classifier, _ = open_classifier(folder)
    if adapters(classifier.model):
        eject(classifier.model, keep_merged=True)
    state = {k: v.contiguous().clone() for k, v in classifier.model.state_dict().items()}
    return write_whole(expanded(out), save(state))


def _file(path: str | None) -> Path | None:
    return None if path is None else expanded(path)
