"""Stable Diffusion 3 at both scales: a pipeline of diffusers' own classes, from a folder.

``tiny`` is a small SD3 that this project pretrained on emoji (``assets/weights/tiny-sd3``); its
prompts are read by the tiny CLIP. ``paper`` is SD3 medium, from a folder on this machine or from
the hub, where its licence has to be accepted first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.download import data_root
from serial_lora_course.models import clip
from serial_lora_course.models.sd3_folder import load_folder, quiet
from serial_lora_course.models.sd3_hub import HUB_REPOSITORY, fetch_from_hub
from serial_lora_course.models.sd3_text import (
    SHORT_LAYERS,
    clip_tokenizer,
    silent_t5,
    silent_t5_tokenizer,
    text_encoder,
)

TINY_MODEL = "tiny-sd3"
PAPER_MODEL = "sd3-medium"
SCALES = ("tiny", "paper")
TEXT_TOKENS = {"tiny": 0, "paper": 77}
MOST_TEXT_TOKENS = 512  # that diffusers' pipeline takes


@dataclass(frozen=True)
class Sd3Backbone:
    """An SD3 pipeline in evaluation mode, on the CPU, what it is called, and its scale.

    Attributes:
        text_tokens: how many tokens T5 adds to CLIP's, for the pipeline's ``max_sequence_length``.
            Where T5 is left out they are zeros, as now and then in SD3's own training (Esser et
            al. 2024, section 5.3, "Flexible Text Encoders").
    """

    pipeline: StableDiffusion3Pipeline
    name: str
    scale: str
    text_tokens: int

    @property
    def transformer(self) -> SD3Transformer2DModel:
        """The part that is adapted."""
        return self.pipeline.transformer

    @property
    def resolution(self) -> int:
        """Side, in pixels, of the square pictures that this model was made for."""
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor


def load_sd3(
    scale: str = "tiny", weights: str | Path | None = "default", text_tokens: int | None = None
) -> Sd3Backbone:
    """Load an SD3 pipeline; at paper scale the transformer in bfloat16, the autoencoder in float32.

    A folder without ``text_encoder_3`` is loaded without T5, by far the largest part: SD3 does
    without it, and loses mostly in written words (Esser et al. 2024, "Flexible Text Encoders").

    Args:
        scale: ``tiny`` or ``paper``.
        weights: a diffusers folder; ``"default"`` for the scale's own (at paper scale the folder
            that ``python -m data_scripts.sd3_weights`` fetched, or else the hub's); None for a
            random transformer and autoencoder (tiny only).
        text_tokens: see :class:`Sd3Backbone`; None for 0 at tiny scale and 77 at paper scale.

    Raises:
        SerialLoRAError: unknown scale, text tokens out of range, the hub out of reach or closed,
            or a folder that is missing, damaged or of another model.
    """
    if scale not in SCALES:
        raise SerialLoRAError(f"There is no scale {scale!r}; choose tiny or paper.")
    text_tokens = TEXT_TOKENS[scale] if text_tokens is None else text_tokens
    if not 0 <= text_tokens <= MOST_TEXT_TOKENS:
        raise SerialLoRAError(
            f"text_tokens is a number from 0 to {MOST_TEXT_TOKENS}, not {text_tokens}."
        )
    if weights is None:
        pipeline = _random_pipeline(scale)
    else:
        folder = _weights_folder(scale, weights)
        pipeline = load_folder(folder, scale, _remedy(scale, folder))
    if pipeline.text_encoder_3 is not None and not text_tokens:
        raise SerialLoRAError(
            "T5 has nothing to say in 0 text tokens; ask for 77, or take a folder without T5 "
            "(fetched with --without-t5)."
        )
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(part is pipeline.transformer)
    pipeline.set_progress_bar_config(disable=True)  # the labs show one of their own
    name = TINY_MODEL if scale == "tiny" else _model_name(pipeline.transformer)
    return Sd3Backbone(pipeline, name, scale, text_tokens)


def _model_name(transformer: SD3Transformer2DModel) -> str:
    """What records call a transformer; its siblings, SD3.5 for one, are told by their size."""
    config = transformer.config
    shape = (config.num_layers, config.num_attention_heads, config.attention_head_dim)
    if shape == (24, 24, 64) and config.qk_norm is None:
        return PAPER_MODEL
    return f"sd3-{config.num_layers}x{transformer.inner_dim}"


def _weights_folder(scale: str, weights: str | Path) -> Path:
    if weights != "default":
        return Path(weights)
    if scale == "tiny":
        return tiny_folder()
    folder = paper_folder()
    return folder if folder.is_dir() else fetch_from_hub()


def _remedy(scale: str, folder: Path) -> str:
    """What to do about a folder that does not load."""
    if scale == "paper":
        return (
            f"fetch {HUB_REPOSITORY} with `python -m data_scripts.sd3_weights`, or name another "
            "folder with --weights."
        )
    if data_root() == folder.parent and folder.name.startswith(TINY_MODEL):
        return "delete it, and it is assembled anew."
    return "name another folder, or none for the tiny SD3 that the package carries."


def paper_folder(root: Path | None = None) -> Path:
    """Where the data script puts SD3 medium."""
    return data_root(root) / "weights" / "sd3"


# --- the tiny SD3 --------------------------------------------------------------------------------


def tiny_path(*parts: str) -> Path:
    """What the package carries of the tiny SD3: ``transformer`` and ``vae``, a folder each."""
    return Path(str(files("serial_lora_course"))).joinpath("assets", "weights", TINY_MODEL, *parts)


def tiny_card() -> Path:
    """How the tiny SD3 was made, and what it is worth: JSON."""
    return tiny_path().with_name(f"{TINY_MODEL}.card.json")


def tiny_folder() -> Path:
    """The tiny SD3 as a folder that ``StableDiffusion3Pipeline.from_pretrained`` loads as it is.

    Assembled once below the data root, from the shipped transformer and autoencoder and from the
    tiny CLIP's text tower; the name holds a fingerprint of all that it is made from.

    Raises:
        SerialLoRAError: it cannot be written.
    """
    folder = data_root() / f"{TINY_MODEL}-{_fingerprint()}"
    if not folder.is_dir():
        with quiet():
            transformer = SD3Transformer2DModel.from_pretrained(tiny_path("transformer"))
            autoencoder = AutoencoderKL.from_pretrained(tiny_path("vae"))
        assemble(folder, transformer, autoencoder)
    return folder


def _fingerprint() -> str:
    """Sixteen digits that change with the shipped files and with what writes and reads them."""
    sources = [tiny_path(part, name) for part in ("transformer", "vae") for name in WEIGHT_FILES]
    sources += [clip.tiny_file(ending) for ending in ("json", "safetensors", "merges.txt.gz")]
    sources += [Path(__file__), Path(__file__).with_name("sd3_text.py")]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    digest.update(f"{version('diffusers')} {version('transformers')}".encode())
    return digest.hexdigest()[:16]


WEIGHT_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def build_pipeline(
    transformer: SD3Transformer2DModel, autoencoder: AutoencoderKL
) -> StableDiffusion3Pipeline:
    """A pipeline whose prompts the tiny CLIP reads, without T5.

    Args:
        transformer: of any size; its text widths are twice the tiny CLIP's.
        autoencoder: with the transformer's latent channels.
    """
    model = clip.load_clip("tiny").model
    length = len(model.positional_embedding)
    tokenizers = [clip_tokenizer(clip.tiny_file("merges.txt.gz"), length) for _ in range(2)]
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),  # shifts are for larger pictures
        text_encoder=text_encoder(model),
        text_encoder_2=text_encoder(model, SHORT_LAYERS),
        text_encoder_3=None,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=None,
    )


def assemble(folder: Path, transformer: SD3Transformer2DModel, autoencoder: AutoencoderKL) -> Path:
    """Write a whole diffusers folder around a transformer and an autoencoder.

    ``from_pretrained`` insists on T5, so the folder has one that is silent: its answers are the
    zeros which the pipeline puts in T5's place where it is told to do without
    (``text_encoder_3=None, tokenizer_3=None``).

    The folder is written beside its final place and then moved there. Of two programs that do so
    at once the first one's stays.

    Raises:
        SerialLoRAError: it cannot be written; nothing is left behind.
    """
    pipeline = build_pipeline(transformer, autoencoder)
    pipeline.register_modules(
        text_encoder_3=silent_t5(transformer.config.joint_attention_dim),
        tokenizer_3=silent_t5_tokenizer(),
    )
    aside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        with quiet():
            pipeline.save_pretrained(aside)
        _readable_for_all(aside)
        if not folder.is_dir():
            _move(aside, folder)
    except OSError as error:
        raise SerialLoRAError(
            f"{folder} cannot be written ({error.strerror or error}); free some space there, or "
            "point SERIAL_LORA_DATA at another folder."
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _move(aside: Path, folder: Path) -> None:
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another program was faster
            raise


def _readable_for_all(folder: Path) -> None:
    """Rights as a plain write gives them; temporary folders and safetensors are their owner's."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _random_pipeline(scale: str) -> StableDiffusion3Pipeline:
    if scale != "tiny":
        raise SerialLoRAError("Random weights are for scale tiny; name a folder with --weights.")
    transformer = SD3Transformer2DModel.from_config(
        SD3Transformer2DModel.load_config(tiny_path("transformer"))
    )
    autoencoder = AutoencoderKL.from_config(AutoencoderKL.load_config(tiny_path("vae")))
    return build_pipeline(transformer, autoencoder)
