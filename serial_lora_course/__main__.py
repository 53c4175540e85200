"""``serial-lora``: the command line, or one sentence where only the library is installed."""

import sys
from collections.abc import Sequence

from serial_lora_course.door import enter


def main() -> None:
    """Run the command line; exit code 2 where the course's packages are not installed."""
    enter("serial-lora", command)


def command(words: Sequence[str]) -> int | None:
    """Run what the words ask for; its exit code."""
    try:
        from serial_lora_course.cli import command as run  # here: a bare install lacks its packages
    except ModuleNotFoundError as error:
        if (error.name or "serial_lora").startswith("serial_lora"):
            raise  # a file of ours is missing, which no installation of packages mends
        print(
            f"serial-lora: only the library is installed here ({error.name} is missing): the course "
            'needs `pip install ".[course]"` in its checkout.',
            file=sys.stderr,
        )
        return 2
    return run(words)


if __name__ == "__main__":
    main()
