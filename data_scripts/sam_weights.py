"""Meta's weights for SAM ViT-B: ``python data_scripts/sam_weights.py --help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_scripts.fetching.command import Quiet, WeightsRoot
from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import Archive, fetch_weights
from serial_lora_course.data.folders import data_root
from serial_lora_course.door import enter
from serial_lora_course.models.sam import PAPER_FILE, PAPER_MODEL, load_sam
from serial_lora_course.models.weights import require_finite

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def weights_file() -> Archive:
    """Meta's checkpoint.

    The six digits in its name are the first of its MD5 (not of its SHA-256, as ``torch.hub`` would
    take them). Meta prints no more of any hash; size, MD5 and SHA-256 are those that projects
    which fetch this file have recorded.
    """
    return Archive(
        file_name=PAPER_FILE,
        urls=(f"https://dl.fbaipublicfiles.com/segment_anything/{PAPER_FILE}",),
        facts=FileFacts(
            size=375_042_383,
            md5="01ec64d29a2fca3f0661936605ae66f8",
            sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        moves={},
    )


def check(path: Path) -> None:
    """Raise unless the file fills the paper's model with finite numbers."""
    require_finite(load_sam("paper", weights=path).model, path)


@app.command()
def main(
    root: WeightsRoot = None,
    base_url: Annotated[
        str | None, typer.Option(help=f"Fetch BASE_URL/{PAPER_FILE} instead of asking Meta.")
    ] = None,
    check_file: Annotated[
        Path | None, typer.Option("--check", help="Only check a checkpoint that you have.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch Meta's weights for SAM ViT-B, and check them.

    Download size: 0.38 GB. Licence: Apache 2.0. Home:
    https://github.com/facebookresearch/segment-anything

    Run the command again after an interruption: it goes on where it stopped. Without a network,
    fetch the file elsewhere, put it into ROOT/weights/ under the name sam_vit_b_01ec64.pth, and
    run the command: it checks what is there. No code in the file is ever run.

    Cite: Kirillov et al.: Segment Anything. ICCV 2023
    """
    path = check_file
    if path is not None:
        check(path)
    else:
        path = fetch_weights(
            weights_file(),
            "sam_weights",
            data_root(root),
            check,
            base_url=base_url,
            progress=not quiet,
        )
    typer.echo(f"{path} holds {PAPER_MODEL}; use it with --scale paper --weights {path}")


if __name__ == "__main__":
    enter("sam_weights", app)
