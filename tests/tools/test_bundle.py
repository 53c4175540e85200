"""The offline bundle: what is in it, that damage is found, that it installs without an index."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from serial_lora.errors import SerialLoRAError
from tools import bundle, install_bundle

ROOT = Path(__file__).resolve().parents[2]
# Stand-ins for the real packages, which are half a gigabyte: they have the modules and commands
# that install.py calls, and note what they are asked.
PACKAGES = {
    "serial_lora": {
        "serial_lora_course/__init__.py": "",
        "serial_lora_course/data/__init__.py": "",
        "serial_lora_course/data/download.py": (
            "import os, pathlib\ndef data_root():\n    return pathlib.Path(os.environ['PLACE'])\n"
        ),
    },
    "ipykernel": {
        "ipykernel/__init__.py": "",
        "ipykernel/__main__.py": "import sys\nprint('ipykernel', *sys.argv[1:])\n",
    },
}


def make_wheel(folder: Path, name: str, files: dict[str, str], needs: str = "") -> None:
    """A wheel by hand: pip asks for the three files of its .dist-info."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    if needs:
        metadata += f"Provides-Extra: course\nRequires-Dist: {needs}; extra == 'course'\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    record = "".join(
        f"{path},sha256={digest(text)},{len(text.encode())}\n" for path, text in files.items()
    )
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A bundle of this checkout with stand-ins for wheels and drawings."""

    def wheels(root: Path, folder: Path) -> None:
        folder.mkdir()
        make_wheel(folder, "serial_lora", PACKAGES["serial_lora"], needs="ipykernel")
        make_wheel(folder, "ipykernel", PACKAGES["ipykernel"])

    def data(folder: Path) -> None:
        folder.mkdir()
        with zipfile.ZipFile(folder / "emoji.zip", "w") as archive:
            archive.writestr("style.npy", "drawings")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "collect_wheels", wheels)
        patch.setattr(bundle, "collect_data", data)
        return bundle.pack(ROOT, tmp_path_factory.mktemp("bundle") / "course")


@pytest.fixture
def copied(packed, tmp_path):
    return Path(shutil.copytree(packed, tmp_path / "carried elsewhere"))


def run_install(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(folder / "install.py"), *arguments],
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=170,
    )


def test_lessons_and_pages_are_in_it(packed):
    names = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "solutions").glob("*.ipynb")]:
        assert path.relative_to(ROOT).as_posix() in names
    for name in (
        "install.py",
        "START_HERE.md",
        "README.md",
        "INSTRUCTORS.md",
        "GLOSSARY.md",
        "CLAIMS.md",
        "LICENSE",
        "DATA_LICENSES.md",
        "data/emoji.zip",
        "SHA256SUMS",
    ):
        assert name in names
    assert not [name for name in names if name.endswith(".partial") or "/." in name]


def test_every_file_has_a_checksum_that_others_can_verify(packed):
    listed = {}
    for line in (packed / "SHA256SUMS").read_text().splitlines():
        value, _, name = line.partition("  ")
        listed[name] = value
    there = {p.relative_to(packed).as_posix() for p in packed.rglob("*") if p.is_file()}
    assert set(listed) == there - {"SHA256SUMS"}
    for name, value in listed.items():
        assert hashlib.sha256((packed / name).read_bytes()).hexdigest() == value


def test_it_names_no_machine_and_no_index(packed):
    own = ("install.py", "START_HERE.md", "bundle.json", "INSTRUCTORS.md")
    text = "\n".join((packed / name).read_text(encoding="utf-8") for name in own)
    assert not re.search(r"(?<![\w.$~])/(home|root|tmp|usr|work|opt)\b|https?://", text)
    assert str(ROOT) not in text and str(Path.home()) not in text


def test_it_installs_with_no_index_to_ask(copied, tmp_path):
    """pip's own settings lead nowhere: whatever it asked a network for would fail."""
    venv, place = tmp_path / "new venv", tmp_path / "drawings"
    done = run_install(
        copied,
        "--venv",
        str(venv),
        PLACE=str(place),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_NO_CACHE_DIR="1",
        https_proxy="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ipykernel install --sys-prefix --name python3" in done.stdout
    assert (place / "emoji" / "style.npy").read_text() == "drawings"
    again = run_install(copied, "--venv", str(venv))
    assert again.returncode == 1 and "is there already" in again.stderr


def test_a_damaged_copy_is_told_before_anything_is_made(copied, tmp_path):
    wheel = next((copied / "wheels").glob("ipykernel*"))
    wheel.write_bytes(wheel.read_bytes()[:-1])
    (copied / "notebooks" / "00_start_here.ipynb").unlink()
    done = run_install(copied, "--venv", str(tmp_path / "venv"))
    assert done.returncode == 1 and "Copy this folder again" in done.stderr
    assert wheel.name in done.stderr and "00_start_here.ipynb" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("fact", "value"), [("python", "3.9"), ("system", "Windows"), ("machine", "arm64x")]
)
def test_another_python_or_system_is_told(copied, tmp_path, fact, value):
    facts = json.loads((copied / "bundle.json").read_text())
    (copied / "bundle.json").write_text(json.dumps(facts | {fact: value}))
    done = run_install(copied, "--venv", str(tmp_path / "venv"))
    assert done.returncode == 1
    assert done.stderr.startswith("This bundle is for Python ") and value in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_wheel_ends_in_one_sentence(copied, tmp_path):
    next((copied / "wheels").glob("ipykernel*")).unlink()
    sums = (copied / "SHA256SUMS").read_text().splitlines()
    (copied / "SHA256SUMS").write_text("\n".join(s for s in sums if "/ipykernel-" not in s) + "\n")
    done = run_install(copied, "--venv", str(tmp_path / "venv"))
    assert done.returncode == 1 and "Installing failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_packing_again_replaces_a_bundle_and_nothing_else(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "collect_wheels", lambda root, folder: folder.mkdir())
    monkeypatch.setattr(bundle, "collect_data", lambda folder: folder.mkdir())
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(SerialLoRAError, match="no bundle"):
        bundle.pack(ROOT, mine)
    assert (mine / "thesis.txt").read_text() == "years"
    old = Path(shutil.copytree(packed, tmp_path / "old"))
    bundle.pack(ROOT, old)
    assert not list((old / "wheels").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "old"]


def test_a_failed_pack_leaves_the_old_bundle(packed, tmp_path, monkeypatch):
    def fail(root, folder):
        raise SerialLoRAError("pip could not download what is needed")

    monkeypatch.setattr(bundle, "collect_wheels", fail)
    old = Path(shutil.copytree(packed, tmp_path / "old"))
    assert bundle.main([str(old)]) == 1
    assert install_bundle.wrong_files(old) == []
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_pip_says_is_passed_on(tmp_path):
    with pytest.raises(SerialLoRAError, match="pip could not download what is needed:\n.*no-such"):
        bundle._run(
            [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "download",
                "--no-index",
                "-d",
                str(tmp_path),
                "no-such-package",
            ]
        )


def test_the_installer_needs_nothing_but_python():
    text = Path(install_bundle.__file__).read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", text.partition('"""')[2], re.MULTILINE))
    imported -= {"serial_lora_course", "shutil"}  # in the program that the new environment runs
    assert imported <= set(sys.stdlib_module_names)
