"""The labs' tests run on the CPU everywhere, and build archives as the data's tests do."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "data"))

os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # their numbers are compared with a CPU's


@pytest.fixture
def run(capsys):
    """Run the command line; exit code, what it printed, what it complained of."""
    from serial_lora import cli

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run
