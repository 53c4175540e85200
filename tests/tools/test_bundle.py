"""The offline bundle: what is in it, and that what START_HERE.md says installs it, with no index."""

import base64
import hashlib
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import bundle

ROOT = Path(__file__).resolve().parents[2]
# Stand-ins for the real packages, which are half a gigabyte.
COURSE = "import sys\ndef main():\n    sys.exit(sys.argv[1:] != ['doctor'])\n"


def make_wheel(folder: Path, name: str, program: str, code: str, metadata: str = "") -> None:
    """A wheel by hand: pip asks for the three files of its .dist-info."""
    info, module = f"{name}-1.0.dist-info", f"{name}_module"
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{program} = {module}:main\n",
    }
    record = "".join(f"{path},sha256={digest(text)},\n" for path, text in files.items())
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def stand_ins(root: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    needs = "Provides-Extra: course\nRequires-Dist: jupyter; extra == 'course'\n"
    make_wheel(folder, "serial_lora", "serial-lora", COURSE, needs)
    make_wheel(folder, "jupyter", "jupyter-lab", COURSE)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A bundle of this checkout with stand-ins for wheels."""
    folder = tmp_path_factory.mktemp("bundle") / "course"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "collect_wheels", stand_ins)
        bundle.pack(ROOT, folder)
    return folder


def test_what_start_here_says_installs_it_with_no_index_to_ask(packed, monkeypatch):
    """pip's own settings lead nowhere: whatever it asked a network for would fail."""
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
