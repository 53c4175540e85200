"""The offline bundle holds all that the course needs. That it installs, `make bundle-check` shows."""

import subprocess
import sys

from tools import ROOT, bundle

AT_WORK = """
from serial_lora_course.checking.solved import SOLVED, solved
from serial_lora_course.data.registry import load_classification
from serial_lora_course.models.clip import load_clip
solved("2.1"), load_clip(), load_classification("food").train[0]
print(SOLVED)
"""


def test_the_packed_course_finds_its_lessons_pictures_and_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "collect_wheels", lambda root, folder: folder.mkdir(parents=True))
    packed = tmp_path / "course"
    bundle.pack(ROOT, packed)
    assert not list(tmp_path.glob(".bundle-*")) and not list(packed.rglob("__pycache__"))
    said = (packed / "START_HERE.md").read_text(encoding="utf-8")
    assert "--no-index --find-links wheels" in said and str(ROOT) not in said
    command = [sys.executable, "-c", AT_WORK]
    done = subprocess.run(command, cwd=packed, capture_output=True, text=True)
    assert done.stdout.strip() == str(packed / "solutions"), done.stderr
