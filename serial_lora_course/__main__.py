"""``serial-lora``: the command line, or one sentence where Python or a package does not fit."""

import sys

OLDEST = (3, 11)


def main() -> None:
    """Run the command line; exit code 2 where Python is too old or a package is missing."""
    if sys.version_info < OLDEST:
        here = ".".join(map(str, sys.version_info[:2]))
        _stop(
            f"this is Python {here}, and the course needs 3.11 to 3.14: install one of them, and "
            "make the environment again (`make lab PYTHON=python3.13`, on Windows "
            "`py -3.13 -m venv .venv`)."
        )
    try:
        from serial_lora_course.cli import main as run  # here: a bare install lacks its packages
    except ModuleNotFoundError as error:
        if (error.name or "serial_lora").startswith("serial_lora"):
            raise  # a file of ours is missing, which no installation of packages mends
        _stop(
            f'{error.name} is missing, and the course needs it: `pip install -e ".[course]"` in '
            "the course's folder."
        )
    run()


def _stop(sentence: str) -> None:
    print(f"serial-lora: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
