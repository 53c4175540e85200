"""The offline bundle: what START_HERE.md says installs it, with no index."""

import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement

from tools import bundle

PACKAGE = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "0.5"
[project.optional-dependencies]
course = {needs}
[project.scripts]
serial-lora = "serial_lora_course.program:main"
[tool.hatch.build.targets.wheel]
include = ["/serial_lora_course"]
dev-mode-dirs = ["."]
"""
PROGRAM = "import sys\ndef main():\n    sys.exit(sys.argv[1:] != ['doctor'])\n"


def write_course(root: Path, name: str = "serial-lora-course", needs: tuple[str, ...] = ()) -> Path:
    """A course of one module, in the folders that a bundle takes."""
    for part in bundle.PACKED:
        (root / part).mkdir(parents=True)
    (root / "serial_lora_course/program.py").write_text(PROGRAM, encoding="utf-8")
    (root / "pyproject.toml").write_text(PACKAGE.format(name=name, needs=list(needs)), "utf-8")
    (root / "LICENSE").touch()
    return root


def stand_ins(root: Path, folder: Path) -> None:
    """Small wheels in place of half a gigabyte; what installs the course is this Python's own."""
    folder.mkdir(parents=True)
    for name in ("jupyter", "editables"):
        of = write_course(folder.parent / f"of-{name}", name)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder.resolve()]
        subprocess.run(build, cwd=of, check=True, capture_output=True)
    names = ["hatchling"]
    for name in names:  # and what it needs
        own = metadata.distribution(name)
        needed = map(Requirement, own.requires or [])
        names += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
        label = f"{name.replace('-', '_')}-{own.version}-py3-none-any.whl"
        with ZipFile(folder / label, "w") as archive:
            for file in own.files:
                if ".." not in file.parts and file.suffix != ".pyc":
                    archive.write(own.locate_file(file), file)


def test_what_start_here_says_installs_it_with_no_index_to_ask(tmp_path, monkeypatch):
    """pip's own settings lead nowhere: whatever it asked a network for would fail."""
    root, packed = write_course(tmp_path / "clone", needs=("jupyter",)), tmp_path / "course"
    monkeypatch.setattr(bundle, "collect_wheels", stand_ins)
    bundle.pack(root, packed)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    text = (packed / "START_HERE.md").read_text(encoding="utf-8")
    assert str(root) not in text
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]
    make, install, doctor, _ = lines
    make[0] = sys.executable
    make.insert(3, "--without-pip")  # this Python's own, which takes seconds less
    install[:3] = [sys.executable, "-m", "pip", "--python", "venv"]
    doctor[0] = doctor[0].replace("bin", "Scripts" if os.name == "nt" else "bin")
    for command in (make, install, doctor):
        subprocess.run(command, cwd=packed, check=True)
    (there,) = packed.glob("venv/**/site-packages/jupyter-*.dist-info")
    assert there
