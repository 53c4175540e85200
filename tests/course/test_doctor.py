"""The doctor's findings on machines that are well, poor, or broken."""

import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch

from serial_lora_course import doctor as doctoring


def test_this_machine_runs_the_course(run):
    code, out, err = run("doctor")
    assert code == ("FAIL" in out) and f"PyTorch {torch.__version__}" in out and not err


def with_torch(monkeypatch, version):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.4", "rich; extra == 'site'"])
    monkeypatch.setattr(metadata, "version", lambda name: version)
    return doctoring.look_at_packages("serial-lora")


def with_disk(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1e12, 0, free * 1e9))
    return doctoring.look_at_disk(Path("not") / "there" / "yet")


FOUND = [
    *((with_torch, *pair) for pair in (("2.3.1", "FAIL"), ("2.4.0", None), ("3.0", None))),
    *((with_disk, *pair) for pair in ((0.2, "FAIL"), (5, None))),
    (lambda patch, version: doctoring.look_at_python(version), (3, 15), "NOTE"),
    (lambda patch, version: doctoring.look_at_python(version), (3, 14), None),
    (lambda patch, free: doctoring.look_at_memory(free), 1.2, "FAIL"),
    (lambda patch, free: doctoring.look_at_memory(free), 8.0, None),
    (lambda patch, name: doctoring.look_at_packages(name), "surely-not-a-package", "NOTE"),
    (lambda patch, name: doctoring.look_at_import(name), "surely_not_a_module", "FAIL"),
    (lambda patch, name: doctoring.look_at_import(name), "torch", None),
]


@pytest.mark.parametrize(("look", "there", "level"), FOUND)
def test_what_is_wrong_has_a_remedy_and_what_is_usual_is_not_told(monkeypatch, look, there, level):
    found = list(look(monkeypatch, there))
    assert [each.level for each in found] == ([level] if level else [])
    assert all(each.remedy for each in found)
