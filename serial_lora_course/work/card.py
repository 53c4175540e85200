"""The card of a classifier: what it is, how it was made and measured."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from serial_lora.files import write_whole
from serial_lora_course.files import expanded, printable
from serial_lora_course.models.clip import TINY_MODEL
from serial_lora_course.work.folder import Job, Reached

CARD_FILE = "README.md"


def write_card(job: Job, reached: Reached, licence: str | None = None) -> Path:
    """Write README.md into the classifier's folder, in the form that the hub reads."""
    name, data = _last_part(job.out), _last_part(job.pictures)
    ours = job.model == TINY_MODEL or expanded(job.model).is_dir()
    model = _last_part(job.model) if ours else job.model
    opened = f'load_vision("{model}")'
    if job.weights is not None:
        opened = f'load_vision("{model}", Path("{_last_part(job.weights)}"))'
    facts = ModelCardData(
        license=licence,
        library_name="serial-lora",
        base_model=None if ours or model.startswith(("timm/", "open_clip/")) else model,
        tags=["serial-lora", "image-classification", "low-rank-adaptation"],
        model_name=name,
        eval_results=[
            EvalResult("image-classification", data, data, "accuracy", round(reached.test, 4))
        ],
    )
    counts = ", ".join(f"{number} {part}" for part, number in reached.pictures.items())
    sure = (reached.test * (1 - reached.test) / reached.pictures["test"]) ** 0.5
    text = f"""---
{facts.to_yaml()}
---

# {name}

A Serial LoRA adapter of rank {job.config.rank} and a linear head for `{model}`, trained to tell
{len(reached.class_names)} classes: {", ".join(reached.class_names)}.

| | |
|---|---|
| Base model | `{model}`, frozen: {reached.total:,} parameters |
| Trained | {reached.trained:,} parameters |
| Pictures | {counts}, of the folder `{data}` |
| Division | {reached.split}; {job.validation_fraction:.0%} of the rest for validation |
| Steps | {reached.steps}, best after {reached.best_step}, in {reached.seconds:.0f} s |
| Settings | learning rate {job.config.lr:g}, batch size {job.config.batch_size}, seed {job.seed} |
| Licence | {licence or "not stated"}; the base model and the pictures have their own |

## Measured

| On the test pictures | Accuracy |
|---|---|
| This classifier | {reached.test:.1%} (standard error {sure:.1%}) |
| Logistic regression on the frozen features | {reached.probe:.1%} |
| Always the largest class | {reached.largest_class:.1%} |

The state was chosen by its loss on the validation pictures, of which it gets {reached.validation:.1%}
right; the test pictures were looked at once.

## Use

```python
from pathlib import Path

from serial_lora_course.labs.own import load_classifier
from serial_lora_course.work.folder import predict
from serial_lora_course.work.vision import load_vision

classifier = load_classifier({opened}, "{name}")
predict(classifier, [Path("picture.png")])  # one row of probabilities
```
"""
    return write_whole(expanded(job.out) / CARD_FILE, text.encode())


def _last_part(path: str) -> str:
    """What a card says of a path: nothing of the folders of this machine."""
    return printable(expanded(path).resolve().name)
