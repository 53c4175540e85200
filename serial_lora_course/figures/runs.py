"""Writing the pictures of a lab's run, whichever lab it is from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.style import save_figure


def save_run(figure: Figure, path: Path, **options: int) -> Path:
    """Write a run's figure, and the folder for it; the path.

    Args:
        options: of :func:`serial_lora_course.figures.style.save_figure`.

    Raises:
        SerialLoRAError: the file cannot be written.
    """
    require_folder(path.parent)
    try:
        return save_figure(figure, path, **options)
    except OSError as error:
        raise _cannot(path, error) from error


def require_folder(folder: Path) -> None:
    """Make the folder of the pictures, before hours go into what they show.

    Raises:
        SerialLoRAError: there can be no such folder, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _cannot(folder, error) from error


def _cannot(path: Path, error: OSError) -> SerialLoRAError:
    return SerialLoRAError(
        f"The picture {path} cannot be written ({error.strerror}); choose another folder with "
        "--pictures."
    )
