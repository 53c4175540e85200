"""From a web address to a folder that the labs can load: what every data script shares.

A script in ``data_scripts/`` holds one :class:`DataSource` (addresses, hashes, licence, how to
cite) and hands it to :func:`data_scripts.fetching.command.command`. The work is here: download,
verify, unpack, put into the layout in which the labs read it, list it as they will and count, and
only then let the folder appear.

Hashes are the official MD5s, as torchvision carries them. SHA-256 values have no official source;
they are recorded in ``NAME.sources.json`` beside the data at the first download that passes the
MD5, and hold from then on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_scripts.fetching.disk import one_at_a_time
from data_scripts.fetching.download import FileFacts, download
from data_scripts.fetching.unpack import extract
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folders import data_root
from serial_lora_course.data.registry import RELEASES
from serial_lora_course.data.releases import Release
from serial_lora_course.files import write_json


@dataclass(frozen=True)
class Archive:
    """One file to fetch, and where its contents go.

    Attributes:
        file_name: of the archive.
        urls: addresses that offer it, tried in order.
        facts: size and hash; unknown ones are recorded at first use.
        packed_anew: the host packs it for each download, so its hash says nothing and is not
            recorded.
        moves: path inside the archive -> path below the data set's folder ("" for the whole).
        inner: archives inside the archive -> the folder inside it to unpack them to.
        keep_as: where to keep the file below the data set's folder, if it is no archive.
    """

    file_name: str
    urls: tuple[str, ...]
    facts: FileFacts = FileFacts()
    moves: Mapping[str, str] = field(default_factory=dict)
    packed_anew: bool = False
    inner: Mapping[str, str] = field(default_factory=dict)
    keep_as: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where a release comes from.

    Attributes:
        name: of the release, see :data:`serial_lora_course.data.registry.RELEASES`.
        homepage, licence, citation: where it comes from and on which terms.
        archives: the files it consists of.
        pictures, classes: how many the labs should find (those CoOp uses, those with masks, or
            those in the paper's styles).
        note: what to know before using it.
        password_at: where its publisher prints the password of the archives, if they are locked.
        browser_address: where a browser gets the archive, if nothing else does.
    """

    name: str
    homepage: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    pictures: int
    classes: int
    note: str = ""
    password_at: str = ""
    browser_address: str = ""

    @property
    def release(self) -> Release:
        """How the labs read it."""
        return RELEASES[self.name]

    def help(self) -> str:
        """Several short paragraphs for ``--help``."""
        sizes = [archive.facts.size for archive in self.archives]
        size = "not known" if None in sizes else f"{sum(filter(None, sizes)) / 1e9:.2f} GB"
        names = " and ".join(archive.file_name for archive in self.archives)
        place = f"ROOT/archives/{self.name}/"
        if self.browser_address:
            ways = (
                f"The archive comes by a browser only, from {self.browser_address}: save it as "
                f"{names} in {place} and run the command."
            )
        else:
            packed_anew = any(archive.packed_anew for archive in self.archives)
            again = (
                "a broken download starts anew" if packed_anew else "it goes on where it stopped"
            )
            ways = (
                f"Run the command again after an interruption: {again}. Without a network, put "
                f"{names} into {place} by hand and run it."
            )
        paragraphs = (
            f"Fetch, verify and prepare {self.release.title}: "
            f"{self.release.describe(self.pictures, self.classes)}.",
            f"Download size: {size}. Licence: {self.licence}. Home: {self.homepage}",
            f"Cite: {self.citation}",
            self.note,
            ways,
        )
        return "\n\n".join(filter(None, paragraphs))


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
    password: str | None = None,
    progress: bool = True,
) -> Path:
    """Bring a data set from the web into the folder that the labs load it from.

    Args:
        source: the data set.
        root: folder of all data; see :func:`serial_lora_course.data.folders.data_root`.
        base_url: fetch ``BASE_URL/FILE_NAME`` instead of the official addresses.
        other_archives: accept archives that are not the official ones (a mirror with a part of
            the pictures, for a class). Their hashes are recorded at first use, and the number of
            pictures is not held against the official one.
        remove_archives: delete the archives when the folder is complete.
        password: of locked archives.
        progress: show progress bars on standard error.

    Returns:
        The data set's folder.

    Raises:
        SerialLoRAError: with the remedy; no half-made folder is left behind.
    """
    root = data_root(root)
    folder, archives = root / source.release.folder, archive_folder(source, root)
    temporary = root / f".{source.name}.preparing"
    with one_at_a_time(archives / ".lock", source.name):
        if folder.exists():
            _check_counts(source, root, other_archives)
            return folder
        if source.password_at and password is None and not other_archives:
            raise SerialLoRAError(
                f"the archive of {source.release.title} is locked; its publisher prints the "
                f"password at {source.password_at}: give it with --password, or put the unpacked "
                f"folder at {folder} and run the same command again."
            )
        if source.browser_address and base_url is None:
            _require_by_hand(source, root)
        record = sources_file(source.name, root)
        options = dict(base_url=base_url, other_file=other_archives, progress=progress)
        paths = [fetch(archive, archives, record, **options) for archive in source.archives]
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        try:
            target = temporary / source.release.folder
            for archive, path in zip(source.archives, paths, strict=True):
                _arrange(archive, path, target, temporary, password, progress)
            _check_counts(source, temporary, other_archives)
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(target, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if remove_archives:
            for path in paths:
                path.unlink()
    return folder


def _require_by_hand(source: DataSource, root: Path) -> None:
    """Raise unless the archives that only a browser gets have been put where they belong."""
    places = [archive_folder(source, root) / archive.file_name for archive in source.archives]
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise SerialLoRAError(
            f"only a browser gets {source.release.title} from {source.browser_address}: save the "
            f"archive there as {' and '.join(missing)}, or put the unpacked folder at "
            f"{root / source.release.folder}, and run the same command again."
        )


def _arrange(
    archive: Archive,
    path: Path,
    target: Path,
    temporary: Path,
    password: str | None,
    progress: bool,
) -> None:
    """Unpack one archive and move what the labs read to where they look for it."""
    if archive.keep_as:
        (target / archive.keep_as).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / archive.keep_as)
        return
    unpacked = temporary / f"unpacked-{archive.file_name}"
    extract(path, unpacked, password=password, progress=progress)
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
    shutil.rmtree(unpacked, ignore_errors=True)  # gone already where it was moved as a whole


def _check_counts(source: DataSource, root: Path, other_archives: bool) -> None:
    """List the data set as the labs will, and count."""
    pictures, classes = source.release.count(root)
    if (pictures, classes) == (source.pictures, source.classes):
        return
    found = source.release.describe(pictures, classes)
    if other_archives and pictures:
        print(f"{source.name}: {found} (the official set has {source.pictures:,})")
        return
    raise SerialLoRAError(
        f"{source.name} has {found} where {source.pictures:,} in {source.classes} are expected; "
        f"move {root / source.release.folder} away and run `python data_scripts/{source.name}.py` "
        "again, or add --other-archives if it is meant to be another selection."
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
    if archive.file_name not in recorded and not archive.packed_anew:
        recorded[archive.file_name] = FileFacts.of(path).known()
        note = "size and SHA-256 of each download as first fetched here; later ones must agree"
        write_json(record, {"note": note, "archives": recorded})
    return path


def fetch_weights(
    archive: Archive,
    script: str,
    root: Path,
    check: Callable[[Path], None],
    *,
    base_url: str | None = None,
    progress: bool = True,
) -> Path:
    """Download a model's weights to ``ROOT/weights``, unless they are there, and check them once.

    A download that fails the check is not kept; a file put there by hand is.

    Args:
        archive: the file and its addresses.
        script: the name under which the first download is recorded.
        root: the data root.
        check: raises an error that says what is wrong with a file.
        base_url: fetch ``BASE_URL/FILE_NAME`` instead.
        progress: show a progress bar on standard error.
    """
    record, path = sources_file(script, root), root / "weights" / archive.file_name
    with one_at_a_time(path.parent / ".lock", archive.file_name):
        was_there, was_recorded = path.exists(), record.exists()
        if was_there:
            check(path)  # says what the file is; its hash would only say what it is not
        fetch(archive, path.parent, record, base_url=base_url, progress=progress)
        try:
            if not was_there:
                check(path)
        except SerialLoRAError:
            path.unlink()
            if not was_recorded:
                record.unlink()
            raise
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
