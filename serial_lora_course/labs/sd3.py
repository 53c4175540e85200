"""The SD3 lab: style tuning with rectified flow, measured by FID, KID and CLIP-Score.

Only the transformer is adapted, and by default only its image stream, which is what the paper's
parameter count fits. What goes in is encoded once (:mod:`serial_lora_course.labs.sd3_pictures`); the
loss is plain rectified flow (:mod:`serial_lora_course.measures.flow`); pictures are drawn by the stock pipeline, for
prompts whose pictures in the style no training has seen, each from noise of its own seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from serial_lora.config import STREAMS
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import dataset_names, load_style
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import StyleData, StyleExample
from serial_lora_course.labs.config import LabConfig, setting
from serial_lora_course.labs.lab import Lab, Outcomes
from serial_lora_course.labs.report import Report, beginning
from serial_lora_course.labs.sd3_pictures import (
    EncodedPicture,
    Prompts,
    TrainingExample,
    draw,
    encode_style,
    meet_noise,
    read_prompts,
)
from serial_lora_course.labs.training import ExampleStream
from serial_lora_course.measures.flow import (
    TRAIN_TIMESTEPS,
    WEIGHTINGS,
    add_noise,
    flow_loss,
    velocity,
)
from serial_lora_course.measures.pictures import (
    frechet_distance,
    kernel_distance,
)
from serial_lora_course.models.judges import Judge, load_judge
from serial_lora_course.models.sd3 import Sd3Backbone, load_sd3


@dataclass(frozen=True)
class Sd3LabConfig(LabConfig):
    """Every choice of a run; the defaults are the paper's.

    What the paper does not state (batch, optimizer, clipping, noise levels; of the rate it calls
    1.5e-5 the "initial" one) is diffusers' training script for SD3, which keeps the rate constant. A resolution of 512 is the course's setting for one GPU; the paper
    draws at 1024.
    """

    rank: int = 64
    lr: float = 1.5e-5
    epochs: int = 10
    batch_size: int = 4
    accumulation: int = 4
    weight_decay: float = 1e-4
    stream: str = setting("image", "tokens to adapt: image, text or both", STREAMS)
    clip_norm: float = setting(1.0, "maximum gradient norm")
    weighting: str = setting(
        "plain", "weighting of the loss over noise levels: plain or sigma_squared", WEIGHTINGS
    )
    text_dropout: float = setting(
        0.1, "share of pictures trained with the empty prompt", least=0, below=1
    )
    resolution: int = setting(512, "side of pictures and drawings, in pixels")
    guidance: float = setting(7.0, "classifier-free guidance of the sampler", least=0)
    drawing_steps: int = setting(28, "number of sampler steps", whole=True, least=1)
    gradient_checkpointing: bool = setting(True, "less memory, slower steps, the same gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution < 16 or self.resolution % 16:
            raise SerialLoRAError(
                f"resolution must be a number of pixels divisible by 16, not {self.resolution}."
            )


PAPER = Sd3LabConfig()
TINY = Sd3LabConfig(
    precision="no",
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
    drawing_steps=10,  # of 28 steps FID says the same, within its spread over seeds
    gradient_checkpointing=False,
)

# ------------------------------------------------------------------------------- the training step


class StyleObjective(nn.Module):
    """The flow loss of a batch: ``forward(TrainingExample of B examples) -> loss``."""

    def __init__(
        self,
        model: SD3Transformer2DModel,
        weighting: str = "plain",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.weighting = model, weighting
        self.checkpointed = list(model.transformer_blocks) if gradient_checkpointing else []
        if gradient_checkpointing:  # computes blocks again on the way back, and only there
            model.enable_gradient_checkpointing()
        else:
            model.disable_gradient_checkpointing()

    def forward(self, batch: TrainingExample) -> Tensor:
        noisy = add_noise(batch.latent, batch.noise, batch.sigma)  # (B, c, h, w)
        target = velocity(batch.latent, batch.noise)
        (predicted,) = self.model(
            hidden_states=noisy,
            encoder_hidden_states=batch.tokens,
            pooled_projections=batch.pooled,
            timestep=batch.sigma * TRAIN_TIMESTEPS,
            return_dict=False,
        )
        return flow_loss(predicted, target, batch.sigma, self.weighting)


# ----------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Trial:
    """What a style is measured with: fixed prompts and real pictures of the style.

    Attributes:
        captions: of the held-out pictures, the prompts that are drawn, each from noise of its own seed.
        prompts, empty: the same, and the empty prompt, read.
        reference: features (N, d) of the same pictures.
    """

    captions: list[str]
    prompts: Prompts
    empty: Prompts
    reference: Tensor


def held_out(data: StyleData) -> list[StyleExample]:
    """The pictures whose captions are drawn."""
    return [data.test[index] for index in range(len(data.test))]


def crowd_measures(features: Tensor, reference: Tensor) -> dict[str, float]:
    """FID and KID of two sets of features."""
    fid, kid = frechet_distance(features, reference), kernel_distance(features, reference)
    return {"fid": fid, "kid": kid}


# ------------------------------------------------------------------------------------- the lab


class Sd3Lab(Lab):
    """Style tuning; the amount is a share of the training pictures.

    Args:
        judge: what measures drawings.
    """

    name, unit, amount, last_losses = "sd3", "percent", 100, 50
    configs = {"tiny": TINY, "paper": PAPER}
    help = {
        "scale": "tiny (drawings of 64 pixels, CPU) or paper (SD3 medium, GPU)",
        "dataset": "styles: names separated by commas, or 'all'",
        "weights": "folder that StableDiffusion3Pipeline can load",
    }
    report = Report(
        title="Style tuning of Stable Diffusion 3",
        result=lambda record: (
            f"FID {record.measures['fid']:.4g} (not adapted {record.measures['base_fid']:.4g}), "
            f"CLIP-Score {record.measures['clip_score']:.3f} "
            f"({record.measures['base_clip_score']:.3f})"
        ),
        columns={
            "FID": ("{:.4g}", itemgetter("fid")),
            "KID": ("{:.3f}", itemgetter("kid")),
            "CLIP-Score": ("{:.3f}", itemgetter("clip_score")),
            "in style": ("{:.0%}", itemgetter("style_share")),
        },
        baselines={"the style": beginning("real_"), "not adapted": beginning("base_")},
        caption="FID and KID to held-out pictures of the style: lower is better. CLIP-Score, and "
        "the share that a style classifier takes for the style: higher is better.",
    )

    datasets = staticmethod(partial(dataset_names, "style"))
    load_data = staticmethod(load_style)
    indices = staticmethod(training_subset)

    def __init__(self, *known: Any, judge: Judge, **more: Any) -> None:
        super().__init__(*known, **more)
        self.judge = judge

    @cached_property
    def trial(self) -> Trial:
        """Read and looked at once, as every model of a style is measured with it."""
        examples = held_out(self.data)
        captions = [each.caption for each in examples]
        prompts, empty = (read_prompts(self.backbone, some) for some in (captions, [""]))
        reference = self.judge.picture_features([each.picture for each in examples])
        return Trial(captions, prompts, empty, reference)

    @cached_property
    def encoded(self) -> Mapping[str, EncodedPicture]:
        examples = [self.data.train[index] for index in range(len(self.data.train))]
        return encode_style(self.backbone, examples, self.config.resolution)

    @staticmethod
    def load_backbone(config: LabConfig, scale: str, weights: str | Path | None) -> Sd3Backbone:
        return load_sd3(scale, weights)

    @staticmethod
    def load_tools(scale: str) -> dict[str, Any]:
        return {"judge": load_judge(scale)}

    def networks(self) -> list[nn.Module]:
        parts = self.backbone.pipeline.components.values()
        return [*(p for p in parts if isinstance(p, nn.Module)), *self.judge.networks()]

    @cached_property
    def contents(self) -> dict[str, Any]:
        return super().contents | {"shift": self.shift, "text_tokens": self.backbone.text_tokens}

    @property
    def shift(self) -> float:
        """The scheduler's, of noise levels."""
        return self.backbone.pipeline.scheduler.config.shift

    def adapter_options(self) -> dict[str, Any]:
        return {"stream": self.config.stream}

    def objective(self) -> StyleObjective:
        config = self.config
        return StyleObjective(self.backbone.model, config.weighting, config.gradient_checkpointing)

    def stream(self, indices: Sequence[int], seed: int) -> ExampleStream:
        """The encoded pictures of a run, each with noise of its own, in a seeded order."""
        ids, config = self.data.train.picture_ids, self.config
        met = {"empty": self.trial.empty, "text_dropout": config.text_dropout, "shift": self.shift}
        return ExampleStream(
            [self.encoded[ids[index]] for index in indices],
            range(len(indices)),
            partial(meet_noise, **met),
            seed,
            config.batch_size,
            config.steps(len(indices)),
        )

    @property
    def workers(self) -> int:
        return 0  # the pictures are encoded already

    def draw(self) -> np.ndarray:
        """The model's drawings (N, side, side, 3) for the trial's prompts, as it is."""
        trial, config = self.trial, self.config
        return draw(
            self.backbone,
            trial.prompts,
            range(len(trial.prompts)),
            config.drawing_steps,
            config.guidance,
            config.resolution,
            trial.empty,
            self.precision,
        )

    def score(self, pictures: np.ndarray | Sequence, style: str | None = None) -> dict[str, float]:
        """What N pictures, one for each prompt of the trial, are worth.

        FID and KID to the held-out pictures of the style, the mean CLIP-Score, and the share that the judge
        takes for the ``style``, by default the data's name.
        """
        judge, trial = self.judge, self.trial
        measures = crowd_measures(judge.picture_features(pictures), trial.reference)
        measures["clip_score"] = judge.clip_scores(pictures, trial.captions).mean().item()
        measures["style_share"] = judge.style_share(pictures, style or self.data.name)
        return measures

    def measure(self) -> tuple[dict[str, float], np.ndarray]:
        drawn = self.draw()
        return self.score(drawn), drawn

    def outcomes(self, seen: np.ndarray) -> Outcomes:
        """The drawings, uint8 (N, side, side, 3), and what the judge sees in each, (N, features)."""
        return {"drawings": seen, "features": self.judge.picture_features(seen).cpu().numpy()}

    def measure_base(self) -> dict[str, float]:
        """What costs no training: the unadapted model (``base_fid`` ...), and real pictures.

        ``real_clip_score`` and ``real_style_share`` are the held-out pictures' own; ``real_fid`` and
        ``real_kid`` compare them with as many training pictures: how near a perfect imitation would come.
        """
        data, judge = self.data, self.judge
        base, _ = self.measure()
        real = self.score([each.picture for each in held_out(data)])
        count = min(len(data.train), len(data.test))
        features = judge.picture_features([data.train[index].picture for index in range(count)])
        real |= crowd_measures(features, self.trial.reference[:count])
        both = ("base_", base), ("real_", real)
        return {f"{of}{name}": value for of, told in both for name, value in told.items()}

    def sizes(self, amount: int, seed: int) -> dict[str, int]:
        return {"drawings": len(self.trial.captions)}


LAB = Sd3Lab
