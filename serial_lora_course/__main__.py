"""``serial-lora``: the command line, or one sentence where Python or a package does not fit."""

import sys
from collections.abc import Sequence

from serial_lora_course.door import enter

OLDEST = (3, 11)


def main() -> None:
    """Run the command line; exit code 2 where Python is too old or a package is missing."""
    enter("serial-lora", command)


def command(words: Sequence[str]) -> int | None:
    """Run what the words ask for; its exit code."""
    if sys.version_info < OLDEST:
        here = ".".join(map(str, sys.version_info[:2]))
        return _refused(
            f"this is Python {here}, and the course needs 3.11 to 3.14: install one of them, and "
            "make the environment again (`make lab PYTHON=python3.13`, on Windows "
            "`py -3.13 -m venv .venv`)."
        )
    try:
        from serial_lora_course.cli import command as run  # here: not for a Python that is too old

        return run(words)
    except ModuleNotFoundError as error:
        if (error.name or "serial_lora").startswith("serial_lora"):
            raise  # a file of ours is missing, which no installation of packages mends
        return _refused(
            f'{error.name} is missing, and the course needs it: `pip install -e ".[course]"` in the '
            "course's folder."
        )


def _refused(sentence: str) -> int:
    print(f"serial-lora: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
