"""The CLIP lab: few-shot classification, zero-shot first, then each method, shots and seed.

    records = run_lab(["nature"], ["lora", "serial_lora"], shots=[16], seeds=[1, 2, 3])

The setting is CLIP-LoRA's, as the paper's Fig. 2 says: cross-entropy over the scaled similarity of
a picture and every class prompt, both towers adapted and both encoded anew at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from serial_lora.attention import find_attention_sites
from serial_lora.config import SerialLoRAConfig
from serial_lora.counting import count_parameters
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import check_fit
from serial_lora.metrics import accuracy
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs import runs
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.records import Record, environment
from serial_lora_course.labs.runs import (
    LabConfig,
    Plan,
    adapted,
    changed_config,
    check_batches,
    check_choices,
    check_crop,
    chosen_methods,
    lab_device,
    loader_workers,
    run_plan,
    several,
    swept_configs,
)
from serial_lora_course.labs.training import PictureStream, plain_worker_errors, train
from serial_lora_course.models.clip import CLIPBackbone, encode_prompts, load_clip


@dataclass(frozen=True)
class CLIPLabConfig(LabConfig):
    """Every choice of a run, :class:`LabConfig`'s first; the defaults are the paper's.

    50 rounds over one picture per class are few, so a run has at least ``min_steps`` steps.

    Attributes:
        prompt: ``dataset`` for the data set's own template, ``generic`` for the one that fits all.
        towers: which towers to adapt, None for both.
        crop: smallest share of the area that a training crop keeps.
    """

    rank: int = 32
    lr: float = 2e-4
    epochs: int = 50
    min_steps: int = 50
    batch_size: int = 32
    weight_decay: float = 1e-2
    dropout: float = 0.25
    prompt: str = "generic"
    towers: tuple[str, ...] | None = None
    crop: float = 0.08
    model_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        SerialLoRAConfig(self.rank, towers=self.towers)  # checks them
        check_crop(self.crop)
        if self.prompt not in PROMPT_STYLES:
            raise SerialLoRAError(
                f"There is no prompt style {self.prompt!r}; use dataset or generic."
            )


PROMPT_STYLES = ("dataset", "generic")
PAPER = CLIPLabConfig()
# Small models want larger steps; few rounds suffice, and each lab run stays within seconds. Twenty
# times such a step for B would wreck the model, so LoRA+ starts from a smaller one.
TINY = CLIPLabConfig(
    rank=16,
    lr=3e-3,
    plus_lr=4e-4,
    epochs=25,
    min_steps=40,
    dropout=0.1,
    prompt="dataset",
    crop=0.6,
    precision="bf16",
)
CONFIGS = {"tiny": TINY, "paper": PAPER}


class CLIPObjective(nn.Module):
    """Mean cross-entropy of pictures against all class prompts: ``forward(batch) -> loss``.

    A batch is pictures (B, 3, size, size) and labels (B,). ``tokens`` are the class prompts
    (classes, context_length).
    """

    def __init__(self, model: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("tokens", tokens, persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        pictures, labels = batch
        scores = class_scores(self.model, pictures, encode_prompts(self.model, self.tokens))
        return nn.functional.cross_entropy(scores.float(), labels)


def class_scores(model: nn.Module, pictures: Tensor, class_features: Tensor) -> Tensor:
    """Scaled cosine similarities (B, classes) of pictures (B, 3, size, size) with the classes."""
    image_features = model.encode_image(pictures, normalize=True)  # (B, embed_dim)
    return model.logit_scale.exp() * image_features @ class_features.T


class Prepared(Dataset):
    """A data set seen through the model's test preprocessing: (tensor, label)."""

    def __init__(self, pictures, transform) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = self.pictures[index]
        return self.transform(picture), label


@torch.no_grad()
def evaluate(
    backbone: CLIPBackbone, data: ClassificationData, template: str, batch_size: int = 128
) -> float:
    """Share of the test pictures that the model puts into the right class."""
    model = backbone.model.eval()
    device = next(model.parameters()).device
    class_features = encode_prompts(model, backbone.tokenizer(data.prompts(template)).to(device))
    loader = DataLoader(
        Prepared(data.test, backbone.test_transform),
        batch_size=batch_size,
        num_workers=loader_workers(backbone.scale),
    )
    scores, labels = [], []
    with plain_worker_errors():
        for pictures, batch_labels in loader:
            scores.append(class_scores(model, pictures.to(device), class_features).float().cpu())
            labels.append(batch_labels)
    return accuracy(torch.cat(scores), torch.cat(labels))


def prompt_template(data: ClassificationData, style: str) -> str:
    return data.template if style == "dataset" else data.generic_template


def zero_shot(backbone: CLIPBackbone, data: ClassificationData) -> dict[str, float]:
    """Accuracy of the unadapted model with the data set's own prompt and with the generic one."""
    return {
        f"zero_shot_{style}": evaluate(backbone, data, prompt_template(data, style))
        for style in PROMPT_STYLES
    }


def run_one(
    backbone: CLIPBackbone,
    data: ClassificationData,
    method: Method,
    shots: int,
    seed: int,
    config: CLIPLabConfig,
    zero_shot_accuracy: dict[str, float] | None = None,
    save_to: Path | None = None,
    progress: bool | None = None,
    keep_adapter: bool = False,
) -> Record:
    """Adapt, measure, and (unless ``keep_adapter``) leave the backbone as it was.

    Raises:
        SerialLoRAError: a setting that does not fit this model or these data.
    """
    model = backbone.model
    base = zero_shot_accuracy or zero_shot(backbone, data)
    split = few_shot_split(data, shots, seed)
    steps = config.steps(len(split.indices))
    stream = PictureStream(
        data.train, split.indices, backbone.train_transform, seed, config.batch_size, steps
    )
    training = config.training(steps, method.ratio, seed, method.plus)
    template = prompt_template(data, config.prompt)
    adapter = method.config(
        config.rank, scale=config.scale_factor, dropout=config.dropout, towers=config.towers
    )
    with adapted(model, adapter, seed, keep_adapter):
        objective = CLIPObjective(model, backbone.tokenizer(data.prompts(template)))
        description = f"{data.name} · {method.label} · {shots} shots · seed {seed}"
        history = train(
            objective,
            stream,
            training,
            save_to,
            description,
            progress,
            loader_workers(backbone.scale),
        )
        count = count_parameters(model)
        reached = evaluate(backbone, data, template)
    return Record(
        task="clip",
        scale=data.scale,
        dataset=data.name,
        method=method.name,
        amount=shots,
        unit="shots",
        seed=seed,
        rank=adapter.rank,
        measures={"accuracy": reached, **base, "loss": history.losses[-1]},
        sizes={
            "parameters": count.adapter,
            "bytes": count.adapter_bytes,
            "peak_memory": history.peak_memory,
            "steps": steps,
            "training_pictures": len(split.indices),
            "short_classes": len(split.short_classes),
        },
        seconds=round(history.seconds, 2),
        settings=run_settings(backbone, data, config) | method.settings,
        environment=environment(),
    )


def run_settings(backbone: CLIPBackbone, data: ClassificationData, config: CLIPLabConfig) -> dict:
    """What a record's key covers beside data set, method and its ratio, shots, seed and rank."""
    settings = runs.run_settings(backbone, data, config)
    settings["towers"] = None if config.towers is None else list(config.towers)
    return settings


def run_lab(
    datasets: Sequence[str],
    methods: Sequence[str] = ("lora", "serial_lora"),
    shots: Sequence[int] = (16,),
    seeds: Sequence[int] = (1, 2, 3),
    scale: str = "tiny",
    out: Path | None = None,
    root: Path | None = None,
    weights: str | Path | None = "default",
    progress: bool | None = None,
    on_record=None,
    ratio: float | Sequence[float] | None = None,
    rank: int | Sequence[int] | None = None,
    plus_lr: float | Sequence[float] | None = None,
    **changes: object,
) -> list[Record]:
    """Run every combination that ``out`` does not hold yet; all records, old ones included.

    Args:
        out: JSONL file of records; None keeps them in memory only.
        on_record: called with each record and whether it is new.
        ratio: rate of B over that of A in the LoRA+ methods, one or several; None for 20.
        rank, plus_lr: settings of :class:`CLIPLabConfig`, one value or several. Methods without a
            plus run at each rank once, whatever the values of ``plus_lr``.
        changes: further settings that differ from the scale's own.

    Raises:
        SerialLoRAError: an unknown data set, method or setting; nothing has been run then.
    """
    configs = lab_configs(scale, rank=rank, plus_lr=plus_lr, **changes)
    datasets, methods, shots, seeds = map(several, (datasets, methods, shots, seeds))
    variants = []  # what runs under which settings
    for config in configs:
        chosen = chosen_methods(methods, config.rank, ratio)
        again = config.plus_lr != configs[0].plus_lr
        variants.append((config, [method for method in chosen if method.plus or not again]))
    config = configs[0]
    check_choices(datasets=datasets, methods=methods, shots=shots, seeds=seeds)
    sets = [load_classification(name, scale, root) for name in datasets]
    backbone = load_clip(scale, config.model_name, weights, (config.crop, 1.0))
    sites = find_attention_sites(backbone.model, config.towers)
    for each, chosen in variants:
        for method in chosen:
            check_fit(backbone.model, sites, method.config(each.rank))
    check_batches(
        (
            len(few_shot_split(data, number, seed).indices)
            for data in sets
            for number in shots
            for seed in seeds
        ),
        config,
    )

    backbone.model.to(lab_device())

    bases: dict[int, dict[str, float]] = {}

    def base_of(data: ClassificationData) -> dict[str, float]:
        if id(data) not in bases:
            bases[id(data)] = zero_shot(backbone, data)
        return bases[id(data)]

    def run_all(config: CLIPLabConfig, chosen: list[Method]) -> list[Record]:
        def run(data, method, number, seed, base, unfinished) -> Record:
            return run_one(backbone, data, method, number, seed, config, base, unfinished, progress)

        return run_plan(
            Plan("clip", sets, chosen, shots, seeds, config.rank),
            settings=lambda data: run_settings(backbone, data, config),
            measure_base=base_of,
            run=run,
            out=out,
            on_record=on_record,
        )

    return [record for config, chosen in variants for record in run_all(config, chosen)]


def lab_configs(
    scale: str,
    rank: int | Sequence[int] | None = None,
    plus_lr: float | Sequence[float] | None = None,
    **changes: object,
) -> list[CLIPLabConfig]:
    """The scale's settings at each rank and each rate of A in LoRA+, with others changed."""
    return swept_configs(CONFIGS, scale, {"rank": rank, "plus_lr": plus_lr}, **changes)


def lab_config(scale: str, **changes: object) -> CLIPLabConfig:
    """The scale's settings with some of them changed (None leaves a setting alone)."""
    return changed_config(CONFIGS, scale, **changes)
