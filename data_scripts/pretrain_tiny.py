"""Pretrain the tiny backbones that the package carries: see ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_scripts.pretraining import clip as pretraining_clip
from data_scripts.pretraining import sam as pretraining_sam
from data_scripts.pretraining import sd3 as pretraining_sd3
from data_scripts.pretraining import styles as pretraining_styles
from serial_lora_course.data.folders import data_root
from serial_lora_course.door import enter

Out = Annotated[Path | None, typer.Option(help="folder of checkpoints and result")]
app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def backbones() -> None:
    """Pretrain a tiny backbone from nothing, on CPU, with checkpoints and resume."""


@app.command()
def clip(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="training on names, measuring not counted")
    ] = 42.0,
    category_minutes: Annotated[
        float, typer.Option(min=0.0, help="then training on kinds of things")
    ] = 11.0,
    seed: Annotated[int, typer.Option(help="of weights, batches and augmentation")] = 0,
    out: Out = None,
) -> None:
    """Pretrain the tiny CLIP on emoji of thirteen designs (needs npm and the extra 'pretrain').

    The first run fetches and draws the icons, about two minutes. An interrupted run goes on from
    its last checkpoint. Config, merges, float16 weights, curve and card end up in --out; copy them
    to serial_lora_course/assets/weights to ship them.
    """
    folder = out or data_root() / "pretraining" / "clip"
    recipe = pretraining_clip.Recipe(minutes=minutes, category_minutes=category_minutes, seed=seed)
    pretraining_clip.Pretraining(folder, recipe).run()
    typer.echo(f"Finished; see {folder / (pretraining_clip.NAME + '.card.json')}")


@app.command()
def sam(
    minutes: Annotated[float, typer.Option(min=0.1, help="training, measuring not counted")] = 80.0,
    seed: Annotated[int, typer.Option(help="of weights, scenes and prompts")] = 0,
    out: Out = None,
) -> None:
    """Pretrain the tiny SAM on Twemoji drawings over photographs.

    An interrupted run goes on from its last checkpoint. Config, float16 weights, curve and card end
    up in --out; copy them to serial_lora_course/assets/weights to ship them.
    """
    folder = out or data_root() / "pretraining" / "sam"
    recipe = pretraining_sam.Recipe(minutes=minutes, seed=seed)
    pretraining_sam.SamPretraining(folder, recipe).run()
    typer.echo(f"Finished; see {folder / (pretraining_sam.TINY_MODEL + '.card.json')}")


@app.command()
def sd3(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="training of the transformer, measuring not counted")
    ] = 90.0,
    autoencoder_minutes: Annotated[
        float, typer.Option(min=0.1, help="training of the autoencoder, before that")
    ] = 12.0,
    seed: Annotated[int, typer.Option(help="of weights, batches and noise")] = 0,
    start: Annotated[
        Path | None, typer.Option(help="folder with transformer and vae to go on from, not chance")
    ] = None,
    out: Out = None,
) -> None:
    """Pretrain the tiny Stable Diffusion 3 on Twemoji and their names.

    An interrupted run goes on from its last checkpoint. Transformer and autoencoder (float16),
    curve, card and a sheet of drawings end up in --out; copy them to serial_lora_course/assets/weights to
    ship them.
    """
    folder = out or data_root() / "pretraining" / "sd3"
    common = {"seed": seed, "start": str(start or "")}
    pretraining_sd3.pretrain(
        folder,
        pretraining_sd3.Recipe(minutes=minutes, **common),
        pretraining_sd3.AutoencoderRecipe(minutes=autoencoder_minutes, **common),
    )
    typer.echo(f"Finished; see {folder / (pretraining_sd3.NAME + '.card.json')}")


@app.command()
def styles(
    out: Out = None,
) -> None:
    """Fit the classifier of the tiny styles that judges drawings, in seconds."""
    folder = out or data_root() / "pretraining" / "styles"
    typer.echo(f"Written to {pretraining_styles.pretrain(folder)}")


if __name__ == "__main__":
    enter("pretrain_tiny", app)
