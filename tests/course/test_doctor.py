"""The doctor's answers on machines that are well, poor, or broken."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from serial_lora_course import doctor as doctoring
from serial_lora_course.doctor import Diagnosis, Report


def test_this_machine_runs_the_course(capsys):
    report = doctoring.doctor(verbose=True)
    said = capsys.readouterr().out
    assert said == f"{report}\n"
    questions = [diagnosis.question for diagnosis in report.diagnoses]
    assert questions[:2] == ["Python", "PyTorch"]
    assert {"Device", "Memory", "Disk", "Tiny weights", "Scale"} <= set(questions)
    assert all(diagnosis.remedy for diagnosis in report.diagnoses if diagnosis.status != "OK")


def test_missing_torch_ends_the_torch_questions(monkeypatch, capsys):
    real = doctoring.importlib.import_module

    def refuse(name, *rest):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *rest)

    monkeypatch.setattr(doctoring.importlib, "import_module", refuse)
    report = doctoring.doctor(verbose=False)
    assert not report.ok
    assert "[FAIL]  PyTorch: ImportError: No module named 'torch'" in str(report)
    assert "Device" not in [diagnosis.question for diagnosis in report.diagnoses]


def with_torch(monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    return doctoring.check_torch()


def with_disk(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1e12, 0, free * 1e9))
    return doctoring.check_disk(Path("not") / "there" / "yet")


ANSWERS = [
    (lambda patch, version: doctoring.check_python(version), (3, 9, 18), "FAIL"),
    (lambda patch, version: doctoring.check_python(version), (3, 10, 0), "OK"),
    *((with_torch, *pair) for pair in (("2.3.1", "FAIL"), ("2.4.0", "OK"), ("3.0", "OK"))),
    *((with_disk, *pair) for pair in ((0.2, "FAIL"), (5, "NOTE"), (90, "OK"))),
    (lambda patch, free: doctoring.check_memory(free), 1.2, "FAIL"),
    (lambda patch, free: doctoring.check_memory(free), 8.0, "OK"),
    (lambda patch, free: doctoring.check_memory(free), None, "NOTE"),
    (lambda patch, free: doctoring.check_gpu_memory(free), 1.0, "NOTE"),
    (lambda patch, free: doctoring.check_gpu_memory(free), 20.0, "OK"),
    (lambda patch, first: doctoring.check_threads(first), False, "NOTE"),
    (lambda patch, name: doctoring.check_import(name), "surely_not_a_module", "FAIL"),
]


@pytest.mark.parametrize(("check", "found", "status"), ANSWERS)
def test_what_is_found_has_a_status_and_a_remedy(monkeypatch, check, found, status):
    diagnosis = check(monkeypatch, found)
    assert diagnosis.status == status and (status == "OK" or diagnosis.remedy)


def test_there_is_nothing_to_say_of_what_is_usual():
    assert doctoring.check_gpu_memory(None) is doctoring.check_threads(True) is None
    assert doctoring.check_import("torch") is None


@pytest.mark.parametrize(("free", "fits"), [(None, False), (3.0, False), (7.5, True), (80.0, True)])
def test_which_scale_fits(free, fits):
    assert doctoring.fits_paper(free) is fits
    assert ("wants a GPU" in doctoring.check_scale(free).answer) is not fits


def test_packages_name_what_is_missing_and_what_is_old():
    diagnoses = doctoring.check_packages(
        ["torch>=2", "numpy>=999", "no-such-package-here>=1", 'x; python_version < "3"']
    )
    by_name = {diagnosis.question: diagnosis for diagnosis in diagnoses}
    assert by_name["Packages"].answer.startswith("torch 2")
    assert by_name["numpy"].status == "FAIL" and ">=999" in by_name["numpy"].answer
    assert by_name["no-such-package-here"].answer == "missing"
    assert 'pip install --upgrade "numpy>=999"' in by_name["numpy"].remedy
    assert "x" not in by_name


def test_a_course_that_is_only_imported():
    (diagnosis,) = doctoring.check_packages([])
    assert diagnosis.status == "NOTE" and ".[course]" in diagnosis.remedy


def test_weights(tmp_path):
    assert doctoring.check_weights(tmp_path).status == "FAIL"
    for name in ("clip", "sd3"):
        (tmp_path / f"{name}.card.json").write_text("{}")
    (tmp_path / "clip.safetensors").write_bytes(b"x" * 2_000_000)
    diagnosis = doctoring.check_weights(tmp_path)
    assert diagnosis.status == "FAIL" and diagnosis.answer.startswith("sd3 missing in ")
    (tmp_path / "sd3" / "vae").mkdir(parents=True)
    (tmp_path / "sd3" / "vae" / "model.safetensors").write_bytes(b"x" * 3_000_000)
    assert doctoring.check_weights(tmp_path).answer == "clip (2 MB), sd3 (3 MB)"


def test_report_verdict():
    good, bad = Diagnosis("OK", "a", "b"), Diagnosis("FAIL", "c", "d", "mend c")
    assert Report([good]).ok and str(Report([good])).endswith("opens the lessons.")
    report = Report([good, bad, bad])
    assert not report.ok
    assert str(report).splitlines()[1:3] == ["[FAIL]  c: d", "        -> mend c"]
    assert str(report).endswith("2 things to mend before you start.")
