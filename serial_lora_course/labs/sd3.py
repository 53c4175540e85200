"""The SD3 lab: style tuning with rectified flow, measured by FID, KID and CLIP-Score.

    records = run_lab(["openmoji"], ["lora", "serial_lora"], percent=[100], seeds=[1, 2, 3])

Only the transformer is adapted, and by default only its image stream, which is what the paper's
parameter count fits. What goes in is encoded once (:mod:`serial_lora_course.labs.sd3_inputs`); the loss is
plain rectified flow (:mod:`serial_lora.flow`); pictures are drawn by the stock pipeline, for
prompts whose pictures in the style no training has seen, each from noise of its own seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn

from serial_lora.attention import find_attention_sites
from serial_lora.counting import count_parameters
from serial_lora.errors import SerialLoRAError
from serial_lora.flow import TRAIN_TIMESTEPS, WEIGHTINGS, add_noise, flow_loss, velocity
from serial_lora.injection import check_fit
from serial_lora.picture_metrics import frechet_distance, jackknife_error, kernel_distance
from serial_lora_course.data.registry import load_style
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import StyleData
from serial_lora_course.labs.memory import saved_activation_bytes
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.records import Record, environment
from serial_lora_course.labs.runs import (
    LabConfig,
    Plan,
    adapted,
    changed_config,
    check_choices,
    check_subsets,
    chosen_methods,
    is_first_process,
    lab_device,
    run_plan,
    run_settings,
    several,
)
from serial_lora_course.labs.sd3_inputs import (
    EncodedPicture,
    Prompts,
    TrainingExample,
    decode_latents,
    encode_style,
    meet_noise,
    read_prompts,
)
from serial_lora_course.labs.training import ExampleStream, TrainingConfig, process_state, train
from serial_lora_course.models.judges import Judge, load_judge
from serial_lora_course.models.sd3 import Sd3Backbone, load_sd3

STREAMS = ("image", "text", "both")
DRAWN_AT_ONCE = {"tiny": 25, "paper": 4}  # 25: what a CPU core works on stays in its cache


@dataclass(frozen=True)
class Sd3LabConfig(LabConfig):
    """Every choice of a run, :class:`LabConfig`'s first; the defaults are the paper's.

    What the paper does not state (batch, optimizer, schedule, clipping, noise levels) is diffusers'
    training script for SD3.

    Attributes:
        stream: tokens that are adapted: "image", "text" or "both".
        schedule, clip_norm: as in :class:`serial_lora_course.labs.training.TrainingConfig`.
        weighting: of the loss over noise levels, see :func:`serial_lora.flow.flow_loss`.
        text_dropout: share of training pictures that meet the empty prompt, so that guidance still
            works afterwards.
        resolution: side of training pictures and drawings, in pixels. 512 is the course's setting
            for one GPU; the paper draws at 1024.
        guidance, drawing_steps: of the sampler.
        gradient_checkpointing: keep only each block's input for the backward pass.
    """

    rank: int = 64
    lr: float = 1.5e-5
    epochs: int = 10
    batch_size: int = 4
    accumulation: int = 4
    weight_decay: float = 1e-4
    stream: str = "image"
    schedule: str = "constant"
    clip_norm: float = 1.0
    weighting: str = "plain"
    text_dropout: float = 0.1
    resolution: int = 512
    guidance: float = 7.0
    drawing_steps: int = 28
    gradient_checkpointing: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, known in (("stream", STREAMS), ("weighting", WEIGHTINGS)):
            if getattr(self, what) not in known:
                raise SerialLoRAError(
                    f"There is no {what} {getattr(self, what)!r}; choose from {', '.join(known)}."
                )
        if not 0 <= self.text_dropout < 1:
            raise SerialLoRAError(
                f"text_dropout is a share from 0 to below 1, not {self.text_dropout}."
            )
        if not 0 <= self.guidance < math.inf:
            raise SerialLoRAError(f"guidance must be 0 or more, and finite, not {self.guidance}.")
        if self.drawing_steps < 1:
            raise SerialLoRAError(f"drawing_steps must be 1 or more, not {self.drawing_steps}.")
        if self.resolution < 16 or self.resolution % 16:
            raise SerialLoRAError(
                f"resolution must be a number of pixels divisible by 16, not {self.resolution}."
            )

    def training(self, steps: int, ratio: float = 1.0, seed: int = 1) -> TrainingConfig:
        """What the training loop needs to know of it."""
        config = super().training(steps, ratio, seed)
        return replace(config, schedule=self.schedule, clip_norm=self.clip_norm)


PAPER = Sd3LabConfig()
TINY = Sd3LabConfig(
    rank=16,
    lr=4e-3,
    plus_lr=4e-4,
    batch_size=16,
    accumulation=1,
    epochs=12,
    min_steps=40,
    schedule="cosine",
    resolution=64,
    guidance=3.0,
    gradient_checkpointing=False,
)
CONFIGS = {"tiny": TINY, "paper": PAPER}

# ------------------------------------------------------------------------------- the training step


class StyleObjective(nn.Module):
    """The flow loss of a batch: ``forward(TrainingExample of B examples) -> loss``."""

    def __init__(self, model: SD3Transformer2DModel, weighting: str = "plain") -> None:
        super().__init__()
        self.model, self.weighting = model, weighting

    def forward(self, batch: TrainingExample) -> Tensor:
        noisy = add_noise(batch.latent, batch.noise, batch.sigma)  # (B, c, h, w)
        (predicted,) = self.model(
            hidden_states=noisy,
            encoder_hidden_states=batch.tokens,
            pooled_projections=batch.pooled,
            timestep=batch.sigma * TRAIN_TIMESTEPS,
            return_dict=False,
        )
        target = velocity(batch.latent, batch.noise)
        return flow_loss(predicted, target, batch.sigma, self.weighting)


def training_stream(
    encoded: Mapping[str, EncodedPicture],
    picture_ids: Sequence[str],
    empty: Prompts,
    shift: float,
    config: Sd3LabConfig,
    seed: int,
) -> ExampleStream:
    """The encoded pictures of a run, each with noise of its own, in a seeded order."""
    return ExampleStream(
        [encoded[picture_id] for picture_id in picture_ids],
        range(len(picture_ids)),
        partial(meet_noise, empty=empty, text_dropout=config.text_dropout, shift=shift),
        seed,
        config.batch_size,
        config.steps(len(picture_ids)),
    )


@contextmanager
def gradient_checkpointing(model: SD3Transformer2DModel, wanted: bool) -> Iterator[None]:
    """Each block's activations computed again in the backward pass, for the length of the block."""
    if wanted:
        model.enable_gradient_checkpointing()
    try:
        yield
    finally:
        model.disable_gradient_checkpointing()


def activation_bytes(
    objective: StyleObjective, stream: ExampleStream, config: TrainingConfig
) -> int:
    """Bytes that the first batch of a run keeps between its forward and its backward pass.

    A batch is what one process computes at once, the whole of it or the part that accumulation and
    other processes leave.
    """
    model = objective.model
    count = stream.batch_size // (config.accumulation * process_state().num_processes)
    batch = stream.collate([stream[position] for position in range(count)])
    batch = TrainingExample(*(part.to(model.device) for part in batch))
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def forward() -> None:
        with autocast:
            objective(batch)

    blocks = model.transformer_blocks if model.is_gradient_checkpointing else ()
    objective.train()  # dropout keeps its masks
    try:
        return saved_activation_bytes(forward, model, blocks)
    finally:
        objective.eval()


# ------------------------------------------------------------------------------------- drawing


@torch.no_grad()
def draw(
    backbone: Sd3Backbone,
    prompts: Prompts | Sequence[str],
    seeds: Sequence[int],
    steps: int = 28,
    guidance: float = 3.0,
    resolution: int | None = None,
    empty: Prompts | None = None,
    precision: str = "bf16",
) -> np.ndarray:
    """A picture for each prompt, by the stock pipeline and its own sampler.

    A picture depends on its prompt and its seed, not on what else is drawn with it.

    Args:
        prompts: N prompts, read already (:func:`read_prompts`) or in words.
        seeds: N numbers, the seed of each picture's noise.
        resolution: side in pixels; None for the model's own.
        empty: the empty prompt, read already, for guidance.
        precision: ``bf16`` (autocast) or ``no`` (float32).

    Returns:
        uint8, (N, resolution, resolution, 3).

    Raises:
        SerialLoRAError: not as many seeds as prompts.
    """
    if len(prompts) != len(seeds):
        raise SerialLoRAError(
            f"Every prompt needs a seed: there are {len(prompts)} prompts and {len(seeds)} seeds."
        )
    if not isinstance(prompts, Prompts):
        prompts = read_prompts(backbone, prompts)
    empty = empty or read_prompts(backbone, [""])
    pipeline, device = _without_text_encoders(backbone.pipeline), backbone.model.device
    side = resolution or backbone.resolution
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    pictures = []
    for start in range(0, len(seeds), DRAWN_AT_ONCE[backbone.scale]):
        some = slice(start, start + DRAWN_AT_ONCE[backbone.scale])
        part, noise = prompts.rows(some), starting_noise(backbone, seeds[some], side)
        count = len(part)
        with autocast:
            latents = pipeline(
                prompt_embeds=part.tokens.to(device),
                pooled_prompt_embeds=part.pooled.to(device),
                negative_prompt_embeds=empty.tokens.expand(count, -1, -1).to(device),
                negative_pooled_prompt_embeds=empty.pooled.expand(count, -1).to(device),
                height=side,
                width=side,
                num_inference_steps=steps,
                guidance_scale=guidance,
                latents=noise.to(device),
                output_type="latent",
            ).images
        pictures.append(decode_latents(backbone, latents))
    return np.concatenate(pictures)


def _without_text_encoders(pipeline: StableDiffusion3Pipeline) -> StableDiffusion3Pipeline:
    """The same pipeline without the parts that stay on the CPU, where it would look for its device.

    Older versions of diffusers take the device of whichever part comes first in the alphabet.
    """
    kept = {name: getattr(pipeline, name) for name in ("transformer", "scheduler", "vae")}
    drawing = StableDiffusion3Pipeline(**dict.fromkeys(pipeline.components) | kept)
    drawing.set_progress_bar_config(disable=True)
    return drawing


def starting_noise(backbone: Sd3Backbone, seeds: Sequence[int], resolution: int) -> Tensor:
    """The noise (N, c, h, w) that drawings start from, each out of a generator of its own."""
    side = resolution // backbone.pipeline.vae_scale_factor
    shape = (backbone.model.config.in_channels, side, side)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


# ----------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Trial:
    """What a style is measured with: fixed prompts, fixed seeds, and real pictures of the style.

    Attributes:
        captions: of the held-out pictures; the prompts that are drawn.
        prompts, empty: the same, and the empty prompt, read.
        reference: features (N, d) of the held-out pictures.
    """

    captions: list[str]
    prompts: Prompts
    empty: Prompts
    reference: Tensor

    @property
    def seeds(self) -> range:
        """The seed of each drawing's noise; the same for every model."""
        return range(len(self.captions))


def prepare_trial(
    backbone: Sd3Backbone, judge: Judge, data: StyleData, count: int | None = None
) -> Trial:
    """Read and look at, once, what every model of a style is measured with.

    ``count`` takes the first so many held-out pictures, for a quick look; None takes all.
    """
    examples = [data.test[index] for index in range(len(data.test))[:count]]
    captions = [example.caption for example in examples]
    return Trial(
        captions,
        read_prompts(backbone, captions),
        read_prompts(backbone, [""]),
        judge.picture_features([example.picture for example in examples]),
    )


def score_pictures(
    pictures: np.ndarray | Sequence, trial: Trial, judge: Judge, style: str
) -> dict[str, float]:
    """What N pictures, one for each prompt of the trial, are worth.

    Returns:
        ``fid`` and ``kid`` to the held-out pictures of the style (lower is better) and the mean
        ``clip_score``, with the standard errors ``fid_error`` and ``clip_error`` over pictures and
        the spread ``kid_std`` over subsets; and what the judge says of the style.
    """
    features = judge.picture_features(pictures)
    return (
        crowd_measures(features, trial.reference)
        | mean_with_error(judge.clip_scores(pictures, trial.captions))
        | judge.style_measures(pictures, style)
    )


def crowd_measures(features: Tensor, reference: Tensor) -> dict[str, float]:
    """FID and KID of two sets of features, with their spreads."""
    kid, spread = kernel_distance(features, reference)
    error = jackknife_error(
        lambda some: frechet_distance(some, reference), features, groups=min(10, len(features))
    )
    fid = frechet_distance(features, reference)
    return {"fid": fid, "fid_error": error, "kid": kid, "kid_std": spread}


def mean_with_error(scores: Tensor) -> dict[str, float]:
    """The mean CLIP-Score of pictures and its standard error."""
    error = scores.std() / len(scores) ** 0.5
    return {"clip_score": scores.mean().item(), "clip_error": error.item()}


def draw_trial(backbone: Sd3Backbone, trial: Trial, config: Sd3LabConfig) -> np.ndarray:
    """The model's drawings (N, side, side, 3) for the trial's prompts, as it is now."""
    return draw(
        backbone,
        trial.prompts,
        trial.seeds,
        config.drawing_steps,
        config.guidance,
        config.resolution,
        trial.empty,
        config.precision,
    )


def base_measures(
    backbone: Sd3Backbone, judge: Judge, data: StyleData, trial: Trial, config: Sd3LabConfig
) -> dict[str, float]:
    """What costs no training: the unadapted model (``base_fid`` ...), and real pictures.

    ``real_clip_score`` and ``real_style_share`` are the held-out pictures' own; ``real_fid`` and
    ``real_kid`` are between training and held-out pictures of the style, as many of one as of the
    other: how near a perfect imitation would come.
    """
    drawn = draw_trial(backbone, trial, config)
    base = score_pictures(drawn, trial, judge, data.name)
    held_out = [data.test[index].picture for index in trial.seeds]
    real = score_pictures(held_out, trial, judge, data.name)
    count = min(len(data.train), len(held_out))
    features = judge.picture_features([data.train[index].picture for index in range(count)])
    real |= crowd_measures(features, trial.reference[:count])
    return {
        f"{kind}_{name}": value
        for kind, measures in (("base", base), ("real", real))
        for name, value in measures.items()
    }


# ------------------------------------------------------------------------------------- the lab


def run_one(
    backbone: Sd3Backbone,
    judge: Judge,
    data: StyleData,
    encoded: Mapping[str, EncodedPicture],
    trial: Trial,
    method: Method,
    percent: int,
    seed: int,
    config: Sd3LabConfig,
    base: dict[str, float] | None = None,
    save_to: Path | None = None,
    progress: bool | None = None,
    keep_adapter: bool = False,
    pictures: Path | None = None,
) -> Record:
    """Tune, draw, measure, and (unless ``keep_adapter``) leave the backbone as it was.

    Args:
        encoded: what :func:`encode_style` made of the training pictures.
        trial: what :func:`prepare_trial` made of the held-out ones.
        percent: share of the training pictures.
        base: what :func:`base_measures` gave for these data, if that is known already.
        pictures: folder for a sheet of the first drawings.

    Raises:
        SerialLoRAError: a setting that does not fit this model or these data.
    """
    model = backbone.model
    base = base or base_measures(backbone, judge, data, trial, config)
    ids = [data.train.picture_ids[index] for index in training_subset(data, percent, seed)]
    shift = backbone.pipeline.scheduler.config.shift
    stream = training_stream(encoded, ids, trial.empty, shift, config, seed)
    training = config.training(stream.steps, method.ratio, seed)
    adapter = adapter_config(method, config)
    with adapted(model, adapter, seed, keep_adapter):
        objective = StyleObjective(model, config.weighting)
        with gradient_checkpointing(model, config.gradient_checkpointing):
            kept = activation_bytes(objective, stream, training)
            description = f"{data.name} · {method.label} · {percent}% · seed {seed}"
            history = train(objective, stream, training, save_to, description, progress)
        count = count_parameters(model)
        drawn = draw_trial(backbone, trial, config)
    reached = score_pictures(drawn, trial, judge, data.name)
    if pictures is not None and is_first_process():
        from serial_lora_course.labs.sd3_pictures import save_sheet

        save_sheet(
            drawn, trial.captions, pictures / f"{data.name}-{percent}-{method.name}-{seed}.png"
        )
    return Record(
        task="sd3",
        scale=data.scale,
        dataset=data.name,
        method=method.name,
        amount=percent,
        unit="percent",
        seed=seed,
        rank=adapter.rank,
        measures={**reached, **base, "loss": float(np.mean(history.losses[-50:]))},
        sizes={
            "parameters": count.adapter,
            "bytes": count.adapter_bytes,
            "activation_bytes": kept,
            "peak_memory": history.peak_memory,
            "steps": stream.steps,
            "training_pictures": len(ids),
            "drawings": len(trial.captions),
        },
        seconds=round(history.seconds, 2),
        settings=run_settings(backbone, data, config),
        environment=environment(),
    )


def adapter_config(method: Method, config: Sd3LabConfig):
    """The adapter that a method means in this lab."""
    return method.config(
        config.rank, scale=config.scale_factor, dropout=config.dropout, stream=config.stream
    )


def run_lab(
    datasets: Sequence[str],
    methods: Sequence[str] = ("lora", "serial_lora"),
    percent: Sequence[int] = (100,),
    seeds: Sequence[int] = (1, 2, 3),
    scale: str = "tiny",
    out: Path | None = None,
    root: Path | None = None,
    weights: str | Path | None = "default",
    progress: bool | None = None,
    on_record: Callable[[Record, bool], None] | None = None,
    pictures: Path | None = None,
    **changes: object,
) -> list[Record]:
    """Run every combination that ``out`` does not hold yet; all records, old ones included.

    Args:
        percent: shares of the training pictures, each a part of the larger ones.
        out: JSONL file of records; None keeps them in memory only.
        pictures: as in :func:`run_one`, a sheet for each run that is new.
        changes: settings of :class:`Sd3LabConfig` that differ from the scale's own.
        on_record: called with each record and whether it is new.

    Raises:
        SerialLoRAError: an unknown data set, method or setting; nothing has been run then.
    """
    config = lab_config(scale, **changes)
    datasets, methods, percent, seeds = map(several, (datasets, methods, percent, seeds))
    chosen = chosen_methods(methods, config.rank)
    check_choices(datasets=datasets, methods=methods, percent=percent, seeds=seeds)
    sets = [load_style(name, scale, root) for name in datasets]
    check_subsets(sets, percent, seeds, config)
    backbone = load_sd3(scale, weights)
    sites = find_attention_sites(backbone.model, stream=config.stream)
    for method in chosen:
        check_fit(backbone.model, sites, adapter_config(method, config))
    judge = load_judge(scale)
    backbone.model.to(lab_device())
    prepared: dict[str, tuple] = {}

    def prepare(data: StyleData) -> tuple:
        """Encoded pictures, trial and base of a style; made when its first run begins."""
        if data.name not in prepared:
            prepared.clear()  # those of the last style are no longer needed
            examples = [data.train[index] for index in range(len(data.train))]
            encoded = encode_style(backbone, examples, config.resolution)
            trial = prepare_trial(backbone, judge, data)
            base = base_measures(backbone, judge, data, trial, config)
            prepared[data.name] = encoded, trial, base
        return prepared[data.name]

    def run(data, method, share, seed, base, unfinished) -> Record:
        encoded, trial, _ = prepare(data)
        return run_one(
            backbone,
            judge,
            data,
            encoded,
            trial,
            method,
            share,
            seed,
            config,
            base,
            unfinished,
            progress,
            pictures=pictures,
        )

    return run_plan(
        Plan("sd3", sets, chosen, percent, seeds, config.rank),
        settings=lambda data: run_settings(backbone, data, config),
        measure_base=lambda data: prepare(data)[2],
        run=run,
        out=out,
        on_record=on_record,
    )


def lab_config(scale: str, **changes: object) -> Sd3LabConfig:
    """The scale's settings with some of them changed (None leaves a setting alone)."""
    return changed_config(CONFIGS, scale, **changes)
