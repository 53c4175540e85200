"""From a web address to a folder that the labs can load: what every data script shares.

A script in ``data_scripts/`` holds one :class:`DataSource` (addresses, hashes, licence, how to
cite) and hands it to :func:`command`. The work is here: download, verify, unpack, put into the
layout of torchvision's class, load with that class and count, and only then let the folder appear.

Hashes are the official MD5s, as torchvision carries them. SHA-256 values have no official source;
they are recorded in ``NAME.sources.json`` beside the data at the first download that passes the
MD5, and hold from then on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from serial_lora.data.classification import PAPER_DATASETS, list_pictures
from serial_lora.data.download import FileFacts, data_root, download, extract
from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_json


@dataclass(frozen=True)
class Archive:
    """One file to fetch, and where its contents go.

    Attributes:
        file_name: of the archive.
        urls: addresses that offer it, tried in order.
        facts: size and hash; unknown ones are recorded at first use.
        moves: path inside the archive -> path below the data set's folder ("" for the folder).
        inner: archives inside the archive -> the folder inside it to unpack them to.
    """

    file_name: str
    urls: tuple[str, ...]
    facts: FileFacts
    moves: Mapping[str, str]
    inner: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSource:
    """A data set on the web.

    Attributes:
        name: as in :data:`serial_lora.data.classification.PAPER_DATASETS`.
        title: for people.
        homepage, licence, citation: where it comes from and on which terms.
        archives: the files it consists of.
        pictures, classes: how many the labs should find (those CoOp uses).
        note: what to know before using it.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    pictures: int
    classes: int
    note: str = ""

    def describe(self) -> str:
        """Several short paragraphs for ``--help``."""
        sizes = [archive.facts.size for archive in self.archives]
        size = "not known" if None in sizes else f"{sum(filter(None, sizes)) / 1e9:.2f} GB"
        return (
            f"Fetch, verify and prepare {self.title}: {self.pictures:,} pictures in "
            f"{self.classes} classes.\n\n"
            f"Download size: {size}. Licence: {self.licence}. Home: {self.homepage}\n\n"
            f"Cite: {self.citation}\n\n"
            f"{self.note + chr(10) + chr(10) if self.note else ''}"
            "Run the command again after an interruption: it goes on where it stopped. Without a "
            f"network, put {' and '.join(archive.file_name for archive in self.archives)} into "
            f"ROOT/archives/{self.name}/ by hand and run it."
        )


def archive_folder(source: DataSource, root: Path) -> Path:
    """Where the archives of a data set are kept, and may be put by hand."""
    return root / "archives" / source.name


def prepare(
    source: DataSource,
    root: str | os.PathLike[str] | None = None,
    *,
    base_url: str | None = None,
    other_archives: bool = False,
    remove_archives: bool = False,
    progress: bool = True,
) -> Path:
    """Bring a data set from the web into the folder that the labs load it from.

    Args:
        source: the data set.
        root: folder of all data; see :func:`serial_lora.data.download.data_root`.
        base_url: fetch ``BASE_URL/FILE_NAME`` instead of the official addresses.
        other_archives: accept archives that are not the official ones (a mirror with a part of
            the pictures, for a class). Their hashes are recorded at first use, and the number of
            pictures is not held against the official one.
        remove_archives: delete the archives when the folder is complete.
        progress: show progress bars on standard error.

    Returns:
        The data set's folder.

    Raises:
        SerialLoRAError: with the remedy; no half-made folder is left behind.
    """
    root = data_root(root)
    dataset = PAPER_DATASETS[source.name]
    folder = root / dataset.folder
    archives = archive_folder(source, root)
    temporary = root / f".{source.name}.preparing"
    with one_at_a_time(archives / ".lock", source.name):
        if folder.exists():
            _check_counts(source, root, other_archives)
            return folder
        paths = [
            fetch(
                archive,
                archives,
                sources_file(source.name, root),
                base_url=base_url,
                other_file=other_archives,
                progress=progress,
            )
            for archive in source.archives
        ]
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        try:
            for archive, path in zip(source.archives, paths, strict=True):
                _arrange(archive, path, temporary, temporary / dataset.folder, progress)
            _check_counts(source, temporary, other_archives)
            os.replace(temporary / dataset.folder, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if remove_archives:
            for path in paths:
                path.unlink()
    return folder


def _arrange(archive: Archive, path: Path, temporary: Path, target: Path, progress: bool) -> None:
    """Unpack one archive and move what the data set's class wants to where it wants it."""
    unpacked = extract(path, temporary / f"unpacked-{archive.file_name}", progress=progress)
    for inner, inside in archive.inner.items():
        if (unpacked / inner).is_file():
            extract(unpacked / inner, unpacked / inside, progress=progress)
    for inside, below in archive.moves.items():
        if not (unpacked / inside).exists():
            raise SerialLoRAError(
                f"{path} has no {inside} inside and so is not laid out like the official archive; "
                "move it away and run the same command again to download it anew."
            )
        destination = target / below
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unpacked / inside, destination)
    shutil.rmtree(unpacked)


def _check_counts(source: DataSource, root: Path, other_archives: bool) -> None:
    """Load the data set as the labs will, and count."""
    listed = list_pictures(source.name, root)
    counts = len(listed), len({row.class_name for row in listed})
    if counts == (source.pictures, source.classes):
        return
    found = f"{counts[0]:,} pictures in {counts[1]} classes"
    if other_archives and counts[0]:
        typer.echo(f"{source.name}: {found} (the official set has {source.pictures:,})")
        return
    raise SerialLoRAError(
        f"{source.name} has {found} where {source.pictures:,} in {source.classes} are expected; "
        f"move {root / PAPER_DATASETS[source.name].folder} away and run `python "
        f"data_scripts/{source.name}.py` again, or add --other-archives if it is meant to be "
        "another selection."
    )


# --- fetching, and what is recorded at first use -------------------------------------------------


def sources_file(name: str, root: Path) -> Path:
    """The file that keeps size and SHA-256 of each download of a script as first fetched."""
    return root / f"{name}.sources.json"


def fetch(
    archive: Archive,
    folder: Path,
    record: Path,
    *,
    base_url: str | None = None,
    other_file: bool = False,
    progress: bool = True,
) -> Path:
    """Download one file, hold it against what is known of it, and record what was not.

    Args:
        archive: the file and its addresses.
        folder: where to keep it.
        record: JSON file of sizes and SHA-256 values seen at first use.
        base_url: fetch ``BASE_URL/FILE_NAME`` instead.
        other_file: set the official facts aside, and hold the file against the record only.
        progress: show a progress bar on standard error.
    """
    recorded = _read_record(record)
    official = {} if other_file else archive.facts.known()
    expected = FileFacts(**{**recorded.get(archive.file_name, {}), **official})
    urls = archive.urls
    if base_url is not None:
        urls = (f"{base_url.rstrip('/')}/{archive.file_name}",)
    path = download(urls, folder / archive.file_name, expected, progress=progress)
    if archive.file_name not in recorded:
        recorded[archive.file_name] = FileFacts.of(path).known()
        note = "size and SHA-256 of each download as first fetched here; later ones must agree"
        write_json(record, {"note": note, "archives": recorded})
    return path


def _read_record(path: Path) -> dict[str, dict[str, int | str]]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8"))["archives"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SerialLoRAError(
            f"{path} cannot be read ({error}); delete it, and it is recorded anew."
        ) from error


class one_at_a_time:
    """Two runs of one script must not write the same files; the second says so and ends."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SerialLoRAError(
                f"{path.parent} cannot be made ({error.strerror}); choose another folder with "
                "--root or SERIAL_LORA_DATA."
            ) from error
        self.lock = FileLock(path)

    def __enter__(self) -> None:
        try:
            self.lock.acquire(blocking=False)
        except Timeout as error:
            raise SerialLoRAError(
                f"another run is preparing {self.name} in {self.path.parent}; wait for it to end."
            ) from error

    def __exit__(self, *exception: object) -> None:
        self.lock.release()


# --- the command line of a script ----------------------------------------------------------------


def command(source: DataSource) -> typer.Typer:
    """The command of one data script."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(help=source.describe())
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
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    ) -> None:
        try:
            folder = prepare(
                source,
                root,
                base_url=base_url,
                other_archives=other_archives,
                remove_archives=remove_archives,
                progress=not quiet,
            )
        except SerialLoRAError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from None
        typer.echo(f"{source.title} is ready: {folder}")
        coop_file = folder / PAPER_DATASETS[source.name].coop_file
        if not coop_file.exists():
            typer.echo(f"For CoOp's own split, as in the paper, put its list there: {coop_file}")
        kept = archive_folder(source, data_root(root))
        if any((kept / archive.file_name).exists() for archive in source.archives):
            typer.echo(f"The archives are kept in {kept}; delete them if you need the space.")

    return app
