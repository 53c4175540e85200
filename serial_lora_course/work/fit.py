"""From a folder of class folders to a classifier: a split, a probe, a training, one look at the test pictures."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from tqdm import tqdm

from serial_lora import SerialLoRAConfig, count_parameters, inject, load_adapter
from serial_lora.errors import SerialLoRAError
from serial_lora.files import read_header, write_whole
from serial_lora_course.data.folder import COPY_OF, examine_folder, load_folder
from serial_lora_course.data.subsets import divided
from serial_lora_course.data.types import Pictures
from serial_lora_course.files import (
    ADAPTER_FILE,
    alone,
    expanded,
    refusals_told,
    write_json,
)
from serial_lora_course.labs.device import this_device
from serial_lora_course.labs.training import ExampleStream, OnPicture, Opened, train
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.models.clip import build_train_transform
from serial_lora_course.models.weights import weights_fingerprint
from serial_lora_course.options import said
from serial_lora_course.work import Job, fit_options
from serial_lora_course.work.classifier import (
    PictureClassifier,
    encode,
    load_vision,
    save_classifier,
)
from serial_lora_course.work.reports import write_card, write_reports

RUN_FILE, RECORD_FILE = "run.txt", "record.json"
UNFINISHED = "unfinished.pt"


@refusals_told()
def fit_folder(job: Job) -> dict[str, Any]:
    """Train an adapter and a head, keep the best state by the validation pictures, and test it once.

    What was reached is returned, and stands in the record and the card in ``out``. An interrupted training
    goes on where it stopped, and a finished one is not run again. Neither is taken for one with other
    options, pictures, classes or weights.
    """
    out = expanded(job.out)
    if expanded(job.pictures).resolve() in out.resolve().parents:
        raise SerialLoRAError(f"{out} lies among the pictures; give --out a folder elsewhere.")
    data = load_folder(job.pictures, job.test_fraction, str, job.groups)
    learnt, judged = divided(data.train, job.validation_fraction, "validation", job.groups)
    parts = {"train": learnt, "validation": judged, "test": data.test}
    vision = load_vision(job.model, job.image_size)
    words = said(fit_options(), job.as_settings())
    options = "".join(f"{shlex.join(line)}\n" for line in words)
    made_from = {
        "options": options,
        "class folders": data.class_names,
        "pictures": data.picture_fingerprint(),
        "model's weights": weights_fingerprint([vision.model]),
        "preparation": [vision.size, *(round(each, 3) for each in vision.mean + vision.std)],
    }
    classifier = _adapted(PictureClassifier(vision, data.class_names), job)
    out.mkdir(parents=True, exist_ok=True)  # not before all that is refused has been
    told = f"another process is training into {out}; wait until it ends, or give another --out."
    with alone(out / ".lock", told):
        reached = _claimed(out, made_from)
        for left in out.glob(".*.partial"):  # by one that was killed; the folder is this job's
            left.unlink()
        write_whole(out / RUN_FILE, options.encode())
        if reached is None:
            facts = examine_folder(job.pictures)
            for row in facts[facts["remark"].str.contains(COPY_OF)].itertuples():
                warnings.warn(f"{row.file}: {row.remark}.", stacklevel=2)
            reached = _fitted(classifier.to(this_device()), parts, job, out)
            reached["division"] = data.split
            write_json(out / RECORD_FILE, {"made_from": made_from, "reached": reached})
        (out / UNFINISHED).unlink(missing_ok=True)  # not before: until here it is what goes on
        write_card(job, data.class_names, reached)
    return reached


def _claimed(out: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """What was reached already by a training into a folder, which is refused if it is another's."""
    inside = {each.name for each in out.iterdir() if each.name[0] != "."}
    new = {"made_from": made_from, "reached": None}
    try:
        known = json.loads((out / RECORD_FILE).read_bytes()) if inside else new
        begun, reached = known["made_from"], known["reached"]
        changed = [what for what, is_now in made_from.items() if begun.get(what, is_now) != is_now]
    except Exception as error:  # there is no record, or it is none of ours
        raise SerialLoRAError(f"{out} holds other files; give --out another folder.") from error
    if inside <= {RECORD_FILE, RUN_FILE}:  # nothing has come of it yet
        write_json(out / RECORD_FILE, new)
        return None
    if changed:
        raise SerialLoRAError(
            f"the {' and the '.join(changed)} have changed since {out} was begun; give another --out."
        )
    if reached is not None:
        read_header(out / ADAPTER_FILE)  # refused, if it is gone or damaged
    return reached


def _adapted(classifier: PictureClassifier, job: Job) -> PictureClassifier:
    """With a fresh adapter, which changes nothing yet, and a head that learns."""
    torch.manual_seed(job.seed)
    where = {"towers": ["image"], "blocks": job.blocks, "places": job.places}
    config = SerialLoRAConfig(job.rank, job.scale_factor, job.dropout, **where)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the running statistics")  # the classifier keeps them
        return inject(classifier, config, also_train=["head"])


def _fitted(
    classifier: PictureClassifier, parts: dict[str, Pictures], job: Job, out: Path
) -> dict[str, Any]:
    """Train, save the best state, and measure it."""
    class_names = classifier.class_names
    features = {name: encode(classifier, part)[::2] for name, part in parts.items()}
    balance = "balanced" if job.balanced else None
    probes = [
        LogisticRegression(C=c, max_iter=5000, class_weight=balance).fit(*features["train"])
        for c in (0.001, 0.01, 0.1, 1.0)
    ]
    probe = max(probes, key=lambda each: each.score(*features["validation"]))

    count = count_parameters(classifier)
    if job.linear_probe:
        first = len(class_names) - len(probe.coef_)  # of two classes, it scores the second
        with torch.no_grad():
            classifier.head.weight[first:] = torch.from_numpy(probe.coef_)
            classifier.head.bias[first:] = torch.from_numpy(probe.intercept_)
        steps, best = 0, {"step": 0, "accuracy": float(probe.score(*features["validation"]))}
        save_classifier(classifier, out)
    else:
        steps, best = _trained(classifier, parts, job, out)

    load_adapter(classifier, out / ADAPTER_FILE)
    _, scores, labels = encode(classifier, parts["test"])
    write_reports(out, class_names, labels, scores.argmax(-1))
    right = (scores.argmax(-1) == labels).numpy()
    probe_right = probe.predict(features["test"][0]) == labels.numpy()
    return {
        "test accuracy": accuracy(scores, labels),
        "logistic regression": float(probe_right.mean()),
        "only adapter right": int((right & ~probe_right).sum()),
        "only regression right": int((probe_right & ~right).sum()),
        "largest class": labels.bincount().max().item() / len(labels),
        "validation accuracy": best["accuracy"],
        "best step": best["step"],
        "steps": steps,
        **{f"{name} pictures": len(part) for name, part in parts.items()},
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


def _trained(classifier: PictureClassifier, parts: dict, job: Job, out: Path) -> tuple[int, dict]:
    """Train, and save what is best after a round; the steps, and what the best was.

    The loss decides, since few pictures have few different accuracies.
    """
    labels, count = parts["train"].labels, len(parts["train"])
    balance = "balanced" if job.balanced else None
    weights = compute_class_weight(balance, classes=np.unique(labels), y=labels)
    objective = Objective(classifier, torch.tensor(weights).float())
    steps, batch = job.steps(count), min(job.batch_size, count)
    every = -(-count // batch)
    best = {"step": 0, "loss": np.inf}
    if (out / UNFINISHED).exists() and (out / ADAPTER_FILE).exists():  # it goes on
        best = json.loads(read_header(out / ADAPTER_FILE).notes["best"])

    def over(step: int) -> bool:
        nonlocal best
        if step % every and step != steps:
            return False
        with torch.random.fork_rng():  # a loader draws a number, and the training must not miss it
            _, scores, labels = encode(classifier, parts["validation"])
        loss = nn.functional.cross_entropy(scores, labels, objective.loss.weight.cpu()).item()
        if not np.isfinite(loss):
            raise SerialLoRAError(
                f"the validation loss became {loss}; train with a smaller --lr, in another --out."
            )
        right = accuracy(scores, labels)
        tqdm.write(f"step {step} of {steps}: validation loss {loss:.3f}, accuracy {right:.1%}")
        if loss < best["loss"]:
            best = {"step": step, "loss": loss, "accuracy": right}
            save_classifier(classifier, out, best=best)
        classifier.train()
        return step - best["step"] >= job.patience * every

    see = classifier.vision
    way_in = OnPicture(build_train_transform(see.size, (job.crop, 1.0), see.mean, see.std))
    stream = ExampleStream(Opened(parts["train"]), range(count), way_in, job.seed, batch, steps)
    config = job.training(steps, seed=job.seed)
    history = train(objective, stream, config, out / UNFINISHED, after_step=over)
    return len(history.losses), best
