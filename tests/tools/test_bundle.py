"""The offline bundle: what is in it, and that what START_HERE.md says installs it, with no index."""

import base64
import hashlib
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from serial_lora.errors import SerialLoRAError
from tests.doors import through_the_door
from tools import bundle

ROOT = Path(__file__).resolve().parents[2]
# Stand-ins for the real packages, which are half a gigabyte: the two commands that START_HERE.md and
# the check call.
COURSE = "import sys\ndef main():\n    sys.exit(sys.argv[1:] != ['doctor'])\n"
JUPYTER = (
    "import pathlib, sys\ndef main():\n    sys.exit(not pathlib.Path(sys.argv[1]).is_file())\n"
)


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
    make_wheel(folder, "jupyter", "jupyter-execute", JUPYTER)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A bundle of this checkout with stand-ins for wheels."""
    folder = tmp_path_factory.mktemp("bundle") / "course"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "collect_wheels", stand_ins)
        bundle.pack(ROOT, folder)
    return folder


@pytest.fixture
def copied(packed, tmp_path):
    return Path(shutil.copytree(packed, tmp_path / "carried elsewhere"))


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_lessons_and_pages_are_in_it(packed):
    names = names_in(packed)
    for folder in ("notebooks", "solutions"):
        assert {f"{folder}/{path.name}" for path in (ROOT / folder).glob("*.ipynb")} <= names
    assert {*bundle.PAGES, "START_HERE.md", "SHA256SUMS"} <= names
    assert not [name for name in names if name.endswith(".partial") or "/." in name]
    assert not [name for name in names if name.startswith("solutions/") and name.endswith(".py")]
    assert str(ROOT) not in (packed / "START_HERE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["INSTRUCTORS.md", "classroom/README.md", "docs/slurm.md"])
def test_links_of_a_teachers_pages_lead_to_what_is_in_it(packed, page):
    text = (packed / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert links
    assert not [link for link in links if not (packed / page).parent.joinpath(link).exists()]


def test_every_file_has_a_checksum_that_others_can_verify(packed):
    lines = (packed / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: value for value, name in (line.split("  ", 1) for line in lines)}
    assert set(listed) == names_in(packed) - {"SHA256SUMS"}
    for name, value in listed.items():
        assert hashlib.sha256((packed / name).read_bytes()).hexdigest() == value


def test_what_start_here_says_installs_it_with_no_index_to_ask(copied, monkeypatch):
    """pip's own settings lead nowhere: whatever it asked a network for would fail."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    ran = through_the_door(bundle.main, copied, "--check")
    steps = ran.output.splitlines()
    assert ran.exit_code == 0, ran.output
    assert len(steps) == 4 and "serial-lora doctor" in steps[2]


def test_packing_again_replaces_a_bundle_and_nothing_else(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "collect_wheels", lambda root, folder: folder.mkdir(parents=True))
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


def test_a_failed_pack_leaves_the_old_bundle(copied, tmp_path, monkeypatch):
    """pip's own words are passed on."""
    before = {name: (copied / name).read_bytes() for name in names_in(copied)}
    monkeypatch.setattr(bundle, "ROOT", tmp_path / "no checkout")
    ran = through_the_door(bundle.main, copied)
    assert ran.exit_code == 2 and "no checkout" in ran.output
    assert {name: (copied / name).read_bytes() for name in names_in(copied)} == before
    assert [path.name for path in tmp_path.iterdir()] == [copied.name]
