"""From a folder of class folders to a classifier, and what is done with one afterwards.

reached = fit_folder(Job(pictures="my_pictures", model="tiny-clip", out="my_classifier"))
classifier, run = open_classifier("my_classifier")
predict(classifier, ["a.png", "b.png"])
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from serial_lora import count_parameters, eject, inject
from serial_lora.errors import SerialLoRAError, require_number
from serial_lora.files import write_whole
from serial_lora_course.data.folder import load_folder
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.subsets import SPLIT_SEED, hash_order
from serial_lora_course.data.types import ClassificationData, Pictures
from serial_lora_course.files import expanded, refusals_told, write_json
from serial_lora_course.labs.linear_probe import Features, chosen_probe
from serial_lora_course.labs.own import (
    PictureClassifier,
    encode,
    load_classifier,
    preprocessing_of,
    save_classifier,
)
from serial_lora_course.labs.resume import TrainingHistory
from serial_lora_course.labs.training import ExampleStream, OnPicture, train
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.weights import weights_fingerprint
from serial_lora_course.work.job import RUN_FILE, Job, read_run, readable
from serial_lora_course.work.report import write_reports

RESULT_FILE = "reached.json"
ORIGIN = "# made from\n"
HISTORY_FILE, UNFINISHED = "validation.json", "unfinished.pt"
LONG = 5  # minutes, of which a note is worth its line
Measured = dict[str, float]
"""``loss``, the mean cross-entropy, and ``accuracy`` on the validation pictures."""
Tell = Callable[[int, Measured], object]


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

    def __post_init__(self) -> None:
        for name in ("validation", "test", "probe", "largest_class", "seconds"):
            require_number(name, getattr(self, name), least=0)
        if not isinstance(self.pictures, dict):
            raise SerialLoRAError("pictures must be the number of each part's.")


class Objective(nn.Module):
    """Mean cross-entropy of a batch: pictures (B, 3, size, size) and labels (B,).

    Args:
        weights: (C,) of the classes; alike where left out.
    """

    def __init__(self, classifier: nn.Module, weights: Tensor | None = None) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, labels = batch
        return nn.functional.cross_entropy(self.classifier(pictures).float(), labels, self.weights)


def train_on(
    classifier: PictureClassifier,
    pictures: Pictures,
    job: Job,
    progress: bool | None = None,
    after_step: Callable[[int], bool] | None = None,
) -> TrainingHistory:
    """Train the adapter and the head, in place, and go on where an interrupted training stopped."""
    config, steps = job.config, job.config.steps(len(pictures))
    way_in = OnPicture(classifier.preprocessing.for_training(config.crop))
    every = range(len(pictures))
    stream = ExampleStream(pictures, every, way_in, job.seed, config.batch_size, steps)
    weights = config.class_weights(pictures.labels, len(classifier.class_names))
    return train(
        Objective(classifier, weights),
        stream,
        config.training(steps, seed=job.seed),
        expanded(job.out) / UNFINISHED,
        "adapter and head",
        progress,
        after_step=after_step,
    )


def fit_folder(
    job: Job, progress: bool | None = None, tell: Tell = lambda step, measured: None
) -> Reached:
    """Train an adapter and a head, keep the best state by the validation pictures, and test it once.

    An interrupted training goes on where it stopped, and a finished one is not run again. Neither is
    taken for one with other pictures, classes or weights.

    Args:
        tell: called after each round with the step and what the validation pictures say.

    Raises:
        SerialLoRAError: ``out`` holds the classifier of another job, or another process is at it, or as
            `load_folder`, `load_vision` and `fit`.
    """
    with _alone(job):
        return _fit_alone(job, progress, tell)


def _fit_alone(job: Job, progress: bool | None, tell: Tell) -> Reached:
    out, config = expanded(job.out), job.config
    data = load_folder(job.pictures, job.test_fraction, class_name=str)
    model = job.load_model()
    origin = {
        "class folders": json.dumps(data.class_names),
        "pictures": data.picture_fingerprint(),
        "model's weights": weights_fingerprint([model]),
    }
    _claim(out, job, origin)
    if (out / RESULT_FILE).exists():
        with readable(out / RESULT_FILE):
            return Reached(**json.loads((out / RESULT_FILE).read_text("utf-8")))
    _tell_of_copies(data)
    parts = divide(data.train, job.validation_fraction) | {"test": data.test}
    prepare = preprocessing_of(model, job.image_size)
    classifier = PictureClassifier(model, data.class_names, prepare)
    _tell_if_long(classifier, parts, job)
    probe, probed = fitted_probe(classifier, parts, "balanced" if config.balanced else None)
    torch.manual_seed(job.seed)
    inject(classifier.model, config.adapter())
    rounds = Rounds(classifier, parts, job, tell)
    count = count_parameters(classifier.model)
    if job.linear_probe:
        _take_over(classifier.head, probe)
        rounds.last, history = 0, TrainingHistory()
        rounds.after(0)
    else:
        history = train_on(classifier, parts["train"], job, progress, rounds.after)
    eject(classifier.model)
    classifier = load_classifier(classifier.model, out)
    _, scores, labels = encode(classifier, data.test)
    write_reports(out, data.class_names, labels.numpy(), scores.argmax(-1).numpy())
    reached = Reached(
        data=origin["pictures"],
        class_names=data.class_names,
        pictures={name: len(part) for name, part in parts.items()},
        split=data.split,
        best_step=rounds.best_until(),
        steps=len(history.losses),
        seconds=round(history.seconds, 1),
        validation=rounds.measured[rounds.best_until()]["accuracy"],
        test=accuracy(scores, labels),
        probe=probed,
        largest_class=labels.bincount().max().item() / len(labels),
        trained=count.adapter + sum(p.numel() for p in classifier.head.parameters()),
        total=count.total - count.adapter,
    )
    write_json(out / RESULT_FILE, asdict(reached))
    (out / UNFINISHED).unlink(missing_ok=True)  # not before: until here it is what goes on
    return reached


def _tell_of_copies(data: ClassificationData) -> None:
    """A note of each file that is there twice, under two classes or in training and test."""
    seen: dict[bytes, tuple] = {}
    for part, pictures in data.parts().items():
        rows = zip(pictures.picture_ids, pictures.labels, pictures.sources, strict=True)
        for name, label, path in rows:
            digest = hashlib.sha256(Path(path).read_bytes()).digest()
            first, *other = seen.setdefault(digest, (name, label, part))
            where = "under two classes" if other[0] != label else "in training and in test"
            if other != [label, part]:
                told = f"{first} and {name} are the same picture, {where}; delete one of them."
                warnings.warn(told, stacklevel=3)


def _take_over(head: nn.Linear, probe: LogisticRegression) -> None:
    """Make a head answer as a probe does."""
    weight, bias = torch.from_numpy(probe.coef_), torch.from_numpy(probe.intercept_)
    if len(weight) == 1:  # of two classes, scikit-learn keeps the second's score alone
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def _tell_if_long(classifier: PictureClassifier, parts: dict[str, Pictures], job: Job) -> None:
    """A note of how long it may take at most, where that is minutes, before anything else."""
    config, side, train = job.config, classifier.preprocessing.size, len(parts["train"])
    batch, steps = min(config.batch_size, train), config.steps(train)
    picture = torch.zeros(1, 3, side, side, device=classifier.head.weight.device)
    started = time.monotonic()
    with torch.no_grad():
        classifier(picture)
    each = time.monotonic() - started
    step = 3 * each * batch  # the way back costs twice the way there
    looks = sum(map(len, parts.values())) + config.epochs * len(parts["validation"])
    minutes = (step * steps + each * looks) / 60
    if minutes > LONG:
        warnings.warn(
            f"a step of {batch} pictures of {side} x {side} takes about {step:.1f} seconds, and all {steps} "
            f"some {minutes:.0f} minutes; a smaller --image-size or model, or a GPU, is faster.",
            stacklevel=3,
        )


class Rounds:
    """Measures after each round, saves what is best so far, and says when to stop.

    The loss decides, since few pictures have few different accuracies. What was measured (step -> what
    the validation pictures say) is kept beside the classifier, so that an interrupted training goes on
    with it.
    """

    def __init__(
        self, classifier: PictureClassifier, parts: dict[str, Pictures], job: Job, tell: Tell
    ) -> None:
        self.classifier, self.pictures = classifier, parts["validation"]
        self.job, self.tell, self.folder = job, tell, expanded(job.out)
        labels = parts["train"].labels
        self.last = job.config.steps(len(labels))
        self.every = math.ceil(len(labels) / min(job.config.batch_size, len(labels)))
        self.weights = job.config.class_weights(labels, len(classifier.class_names))
        self.begun: tuple[int, float] | None = None
        self.measured: dict[int, Measured] = {}
        path = self.folder / HISTORY_FILE
        if path.exists():
            with readable(path):
                for step, kept in json.loads(path.read_text("utf-8")).items():
                    self.measured[int(step)] = {k: float(kept[k]) for k in ("loss", "accuracy")}

    def best_until(self, step: float = math.inf) -> int:
        """The first step with the lowest loss."""
        known = (each for each in self.measured if each <= step)
        return min(known, key=lambda each: (self.measured[each]["loss"], each))

    def after(self, step: int) -> bool:
        """Measure if a round is over; True when training should stop.

        Raises:
            SerialLoRAError: the loss is no number any more.
        """
        self.begun = self.begun or (step - 1, time.monotonic())
        if step % self.every and step != self.last:
            return False
        if step not in self.measured:  # else before an interruption
            self._measure(step)
        best = self.best_until(step)
        return sum(best < each <= step for each in self.measured) >= self.job.patience

    def _measure(self, step: int) -> None:
        with torch.random.fork_rng():  # a loader draws a number, and the training must not miss it
            _, scores, labels = encode(self.classifier, self.pictures)
        self.classifier.train()
        loss = nn.functional.cross_entropy(scores, labels, self.weights).item()
        if not math.isfinite(loss):
            raise SerialLoRAError(
                f"after step {step} the validation loss is {loss}; train with a smaller --lr, in "
                "another --out."
            )
        self.measured[step] = {"loss": loss, "accuracy": accuracy(scores, labels)}
        if self.best_until() == step:
            save_classifier(self.classifier, self.folder)
        write_json(self.folder / HISTORY_FILE, self.measured)
        first, started = self.begun
        left = (time.monotonic() - started) / (step - first) * (self.last - step)
        self.tell(step, self.measured[step] | {"seconds_left": left})


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """The job's folder for one process at a time; the system frees it when that ends, however it ends."""
    out = Path(os.path.realpath(expanded(job.out)))
    place = out.with_name(f".{out.name}.lock")
    with refusals_told():
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise SerialLoRAError(
                f"another process is training into {job.out}; wait until it ends, and the same command "
                "says what came of it, or give another --out."
            ) from error
    try:
        yield
    finally:
        lock.release()
        if (out / RESULT_FILE).exists():  # whoever has the lock by now finds the result
            with suppress(OSError):  # Windows deletes no file that is open
                place.unlink()


def _claim(out: Path, job: Job, origin: dict[str, str]) -> None:
    """Write the job and what it is made from into its folder, unless that holds another's work.

    What it is made from stands in comments, since ``--config`` reads the rest.
    """
    path = out / RUN_FILE
    inside = {each.name for each in out.iterdir()} if out.exists() else set()
    with readable(path):
        text = path.read_text("utf-8") if RUN_FILE in inside else ""
    if inside and ORIGIN not in text:
        raise SerialLoRAError(f"{out} holds other files; give --out a folder of its own.")
    settings, _, kept = text.partition(ORIGIN)
    if inside > {RUN_FILE}:
        if settings.encode() != job.as_yaml():
            raise SerialLoRAError(
                f"{out} holds the classifier of another run ({path} says which); give another "
                "--out, or delete the folder."
            )
        changed = [what for what, is_now in origin.items() if f"# {what}: {is_now}\n" not in kept]
        if changed:
            raise SerialLoRAError(
                f"the {' and the '.join(changed)} have changed since {out} was begun; give another --out, "
                "or delete the folder to train anew."
            )
    lines = "".join(f"# {what}: {is_now}\n" for what, is_now in origin.items())
    write_whole(path, job.as_yaml() + (ORIGIN + lines).encode())


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


def fitted_probe(
    classifier: PictureClassifier, parts: dict[str, Pictures], weights: str | None = None
) -> tuple[LogisticRegression, float]:
    """A linear probe on the classifier's features before it is adapted, and its test accuracy.

    Args:
        parts: the pictures ``train``, ``validation`` and ``test``.
        weights: of classes, in scikit-learn's words.
    """
    known: dict[str, Features] = {}
    for name, part in parts.items():
        features, _, labels = encode(classifier, part)
        known[name] = features.numpy(), labels.numpy()
    probe = chosen_probe(known["train"], known["validation"], weights=weights)
    return probe, float(probe.score(*known["test"]))


def open_classifier(folder: str | Path) -> tuple[PictureClassifier, Job]:
    """A classifier that `fit_folder` made, with its model, and what its run.yaml says of that.

    Raises:
        SerialLoRAError: as `read_run`, or its model cannot be loaded.
    """
    job = Job(**read_run(folder))
    return load_classifier(job.load_model(), expanded(folder)), job


def predict(
    classifier: PictureClassifier,
    paths: Sequence[str | Path],
    batch_size: int = 64,
    unreadable: Callable[[str | Path, SerialLoRAError], object] | None = None,
) -> torch.Tensor:
    """Probabilities (N, C) of picture files.

    Args:
        unreadable: called for each file that is no picture, whose row is then NaN.

    Raises:
        SerialLoRAError: there is no file, or one that is no picture.
    """
    bad = set()

    def read(path: str | Path) -> Image.Image:
        try:
            return read_picture(path, upright=True)
        except SerialLoRAError as error:
            if unreadable is None:
                raise
            bad.add(path)
            unreadable(path, error)
            return Image.new("RGB", (1, 1))

    pictures = Pictures(list(map(str, paths)), read, paths, labels=[0] * len(paths))
    _, scores, _ = encode(classifier, pictures, batch_size)  # whatever the labels are
    scores[[path in bad for path in paths]] = torch.nan
    return scores.softmax(-1)
