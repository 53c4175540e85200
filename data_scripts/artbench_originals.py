"""ArtBench's two styles at their own size: ``python data_scripts/artbench_originals.py --help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from data_scripts.fetching.command import Quiet
from data_scripts.fetching.download import download
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folders import data_root
from serial_lora_course.data.style_files import STYLE_RELEASES, artbench_addresses, load_style_files
from serial_lora_course.door import enter

GIVE_UP = 25  # failures one after another: the network is gone, or the host wants no more

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    root: Annotated[
        Path | None, typer.Option(help="Folder of all data sets, with ArtBench-10 in it.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch the works that the labs use, from where ArtBench's list says that they are.

    ArtBench's files have 256 x 256 pixels; a model that is tuned on them at 512 or 1024 learns blur
    with the style. The pictures that this brings are read in their place. Some addresses no longer
    answer: those works stay as they are. Run the command again to go on after an interruption.
    The pictures are their owners', on the terms of their hosts; do not pass them on.
    """
    release = STYLE_RELEASES["artbench"]
    folder, larger = data_root(root) / release.folder, data_root(root) / release.larger
    wanted = [
        picture_id
        for style in release.styles
        for part in load_style_files(style, data_root(root)).parts().values()
        for picture_id in part.picture_ids
    ]
    addresses, failed, found = artbench_addresses(folder), 0, 0
    console = Console(stderr=True)
    for picture_id in track(wanted, "ArtBench-10", console=console, disable=quiet):
        there = _bring(addresses.get(picture_id), larger / picture_id)
        found, failed = found + there, 0 if there else failed + 1
        if failed == GIVE_UP:
            raise SerialLoRAError(
                f"{GIVE_UP} works one after another could not be fetched; run the same command "
                f"again later. {found} are in {larger}."
            )
    typer.echo(f"{found} of {len(wanted)} works are at their own size in {larger}.")


def _bring(address: str | None, destination: Path) -> bool:
    """Whether a picture is there, now or before."""
    if not address:
        return False
    try:
        download(address, destination, progress=False, attempts=1)
        with Image.open(destination) as picture:
            picture.verify()
    except SerialLoRAError:
        return False
    except (OSError, SyntaxError):  # a page that says sorry
        destination.unlink(missing_ok=True)
        return False
    return True


if __name__ == "__main__":
    enter("artbench_originals", app)
