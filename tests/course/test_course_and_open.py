"""The commands `course` and `open`, and what a bare installation of the library says."""

import subprocess
import sys

BARE = """
import sys
from types import SimpleNamespace
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from serial_lora_course.__main__ import main
main()
"""


def bare(missing: list[str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BARE.format(missing=missing)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_with_the_library_alone_the_command_says_what_the_course_needs():
    done = bare(["yaml", "matplotlib"])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and '".[course]"' in done.stderr
    assert "Traceback" in bare(["serial_lora_course.cli"]).stderr
