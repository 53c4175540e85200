"""The command line of a data script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_scripts.fetching.sources import DataSource, archive_folder, prepare
from serial_lora_course.data.classification_files import CLASSIFICATION_RELEASES
from serial_lora_course.data.folders import data_root

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
WeightsRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of all data. Without it: $SERIAL_LORA_DATA, else the data folder of your "
        "account. The weights go to ROOT/weights/."
    ),
]


def command(source: DataSource) -> typer.Typer:
    """The command of one data script."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(help=source.help())
    def main(
        root: Annotated[
            Path | None,
            typer.Option(
                help="Folder of all data sets. Without it: $SERIAL_LORA_DATA, else the data "
                "folder of your account."
            ),
        ] = None,
        base_url: Annotated[
            str | None,
            typer.Option(help="Fetch BASE_URL/FILE instead of the official addresses."),
        ] = None,
        other_archives: Annotated[
            bool,
            typer.Option(
                "--other-archives",
                help="Accept archives that are not the official ones (a selection for a class).",
            ),
        ] = False,
        remove_archives: Annotated[
            bool,
            typer.Option("--remove-archives", help="Delete the archives once all is unpacked."),
        ] = False,
        password: Annotated[
            str | None,
            typer.Option(help="Of an archive that is locked, as its publisher prints it."),
        ] = None,
        quiet: Quiet = False,
    ) -> None:
        folder = prepare(
            source,
            root,
            base_url=base_url,
            other_archives=other_archives,
            remove_archives=remove_archives,
            password=password,
            progress=not quiet,
        )
        typer.echo(f"{source.release.title} is ready: {folder}")
        if source.name in CLASSIFICATION_RELEASES:
            coop_file = folder / CLASSIFICATION_RELEASES[source.name].coop_file
            if not coop_file.exists():
                typer.echo(f"For CoOp's own split, as in the paper, put it there: {coop_file}")
        kept = archive_folder(source, data_root(root))
        if any((kept / archive.file_name).exists() for archive in source.archives):
            typer.echo(f"The archives are kept in {kept}; delete them if you need the space.")

    return app
