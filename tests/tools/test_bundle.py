"""The offline bundle: what START_HERE.md says installs it, with no index."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tools import ROOT, bundle

PACKAGE = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "1.0"
[project.optional-dependencies]
course = {needs}
[project.scripts]
{name} = "{module}:main"
[tool.hatch.build.targets.wheel]
include = ["*.py"]
"""
PROGRAM = "import sys\ndef main():\n    sys.exit(sys.argv[1:] != ['doctor'])\n"


def stand_ins(root: Path, folder: Path) -> None:
    """Two small wheels in place of the real ones, which are half a gigabyte."""
    for name, needs in (("serial-lora", ["jupyter"]), ("jupyter", [])):
        made, module = folder.parent / f"of-{name}", f"{name.replace('-', '_')}_stand_in"
        made.mkdir(parents=True)
        text = PACKAGE.format(name=name, module=module, needs=needs)
        (made / "pyproject.toml").write_text(text, encoding="utf-8")
        (made / f"{module}.py").write_text(PROGRAM, encoding="utf-8")
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder.resolve()]
        subprocess.run(build, cwd=made, check=True, capture_output=True)


def test_what_start_here_says_installs_it_with_no_index_to_ask(tmp_path, monkeypatch):
    """pip's own settings lead nowhere: whatever it asked a network for would fail."""
    packed = tmp_path / "course"
    monkeypatch.setattr(bundle, "collect_wheels", stand_ins)
    bundle.pack(ROOT, packed)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    text = (packed / "START_HERE.md").read_text(encoding="utf-8")
    assert str(ROOT) not in text
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]
    make, install, doctor, _ = lines
    make[0] = sys.executable
    make.insert(3, "--without-pip")  # this Python's own, which takes seconds less
    install[:3] = [sys.executable, "-m", "pip", "--python", "venv"]
    doctor[0] = doctor[0].replace("bin", "Scripts" if os.name == "nt" else "bin")
    for command in (make, install, doctor):
        subprocess.run(command, cwd=packed, check=True)
