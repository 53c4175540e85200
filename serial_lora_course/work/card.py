"""The card of a classifier, in the form that the Hugging Face hub reads: what it is, and measured."""

from __future__ import annotations

import warnings
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from serial_lora.files import write_whole
from serial_lora_course.files import expanded, printable
from serial_lora_course.models.clip import TINY_MODEL
from serial_lora_course.work.folder import Reached
from serial_lora_course.work.job import Job

CARD_FILE = "README.md"
TEXT = """---
{facts}
---

# {name}

A Serial LoRA adapter of rank {config.rank} and a linear head for `{model}`, frozen. Classes: {classes}.

| | |
|---|---|
| Accuracy on the test pictures | {reached.test:.1%} (standard error {error:.1%}) |
| Logistic regression on the frozen features | {reached.probe:.1%} |
| Always the largest class | {reached.largest_class:.1%} |
| Parameters | {reached.trained:,} trained, {reached.total:,} frozen |
| Pictures | {counts}, of the folder `{data}` |
| Division | {reached.split}; {job.validation_fraction:.0%} of the rest for validation |
| Training | step {reached.best_step} of {reached.steps}, learning rate {config.lr:g}, batch size {config.batch_size}, seed {job.seed} |
| Licence | {licence}; the base model and the pictures have their own |

```python
from pathlib import Path

from serial_lora_course.labs.own import load_classifier
from serial_lora_course.work.folder import predict
from serial_lora_course.work.vision import load_vision

classifier = load_classifier({opened}, "{name}")
predict(classifier, [Path("picture.png")])  # one row of probabilities
```
"""


def write_card(job: Job, reached: Reached, licence: str | None = None) -> Path:
    """Write README.md into the classifier's folder, unless one is there already.

    It names no folder of this machine.
    """
    name, data = _last_part(job.out), _last_part(job.pictures)
    ours = job.model == TINY_MODEL or expanded(job.model).is_dir()
    model = _last_part(job.model) if ours else job.model
    weights = f', Path("{_last_part(job.weights)}")' if job.weights is not None else ""
    size = "" if job.image_size is None else f", image_size={job.image_size}"
    right = round(reached.test, 4)
    facts = ModelCardData(
        license=licence,
        library_name="serial-lora",
        base_model=None if ours or model.startswith(("timm/", "open_clip/")) else model,
        tags=["serial-lora", "image-classification", "low-rank-adaptation"],
        model_name=name,
        eval_results=[EvalResult("image-classification", data, data, "accuracy", right)],
    )
    text = TEXT.format(
        facts=facts.to_yaml(),
        name=name,
        data=data,
        model=model,
        job=job,
        config=job.config,
        reached=reached,
        classes=", ".join(reached.class_names),
        counts=", ".join(f"{number} {part}" for part, number in reached.pictures.items()),
        error=(reached.test * (1 - reached.test) / reached.pictures["test"]) ** 0.5,
        licence=licence or "not stated",
        opened=f'load_vision("{model}"{weights}{size})',
    )
    path = expanded(job.out) / CARD_FILE
    if not path.exists():
        write_whole(path, text.encode())
    elif path.read_bytes() != text.encode():
        warnings.warn(f"{path} is kept as it is; delete it to have it written anew.", stacklevel=2)
    return path


def _last_part(path: str) -> str:
    return printable(expanded(path).resolve().name)
