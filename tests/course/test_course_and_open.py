"""The commands `course` and `open`, and what a bare installation of the library says."""

import subprocess
import sys
from types import SimpleNamespace

from serial_lora_course import cli


def test_open_starts_jupyterlab_on_the_first_lesson(run, monkeypatch, tmp_path):
    commands = []

    def start(command, env):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cli, "subprocess", SimpleNamespace(run=start))
    lesson = tmp_path / "notebooks" / "00_start_here.ipynb"
    lesson.parent.mkdir()
    lesson.touch()
    monkeypatch.chdir(lesson.parent)
    assert run("open")[0] == 0
    assert commands == [[sys.executable, "-m", "jupyterlab", str(lesson)]]
    lesson.unlink()
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "a" / "cli.py"))
    code, _, err = run("open")
    assert code == 2 and "course's folder" in err


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
    done = bare(["jsonargparse", "matplotlib"])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and '".[course]"' in done.stderr
    assert "Traceback" in bare(["serial_lora_course.cli"]).stderr
