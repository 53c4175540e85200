"""What class.yaml may say, what is refused before a class, and what follows from it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from traitlets.config.loader import Config

from tests.models.architectures import ARCHITECTURES
from tools import ROOT

HERE = ROOT / "classroom"
sys.path.insert(0, str(HERE))
import check_class  # noqa: E402
from handout import hand_out  # noqa: E402

USUAL = yaml.safe_load((HERE / "class.yaml").read_text("utf-8"))


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A function: class.yaml's settings -> what JupyterHub is told, and the file's own names."""
    monkeypatch.chdir(tmp_path)

    def configured(text=None, **changes):
        said = yaml.safe_dump(USUAL | changes) if text is None else text
        (tmp_path / "class.yaml").write_text(said)
        path, c = HERE / "jupyterhub_config.py", Config()
        names = {"get_config": lambda: c, "__file__": str(path)}
        exec(compile(path.read_text("utf-8"), path, "exec"), names)
        return c, names

    return configured


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"authenticator": "dummy"}, "dummy"),
        ({"learners": ["../etc"]}, "learners"),
        ({"learners": []}, "nobody"),
        ({"gpu": "half"}, "queue"),
        ({"memmory": "3G"}, "memmory"),
        ({"memory": 3}, "memory"),
        ({"labs": ["clap"]}, "clap"),
        ({"learners": "ada"}, "learners"),
        ({"labs": None}, "labs"),
        ({"cores": "many"}, "cores"),
        ({"gpu": "share", "gpu_share": "half"}, "gpu_share"),
        ({"environment": None}, "environment"),
        ({"gpu": "share"}, "nvidia-smi"),
        ({"text": "a: b: c"}, "YAML"),
    ],
)
def test_a_mistake_ends_the_hub_in_one_sentence(configured, changes, words):
    with pytest.raises(SystemExit, match=f"^class.yaml: [^\n]*{words}[^\n]*$"):
        configured(**changes)


CARDS = "GPU-a, 24564\nGPU-b, 24564"


def test_learners_are_dealt_out_over_the_cards_and_each_way_to_share_one_sets_what_is_read(
    configured, tmp_path, monkeypatch
):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{CARDS}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def told(name, **changes):
        c, _ = configured(data="/d", **changes)
        spawner = SimpleNamespace(
            user=SimpleNamespace(name=name), environment=dict(c.Spawner.environment)
        )
        c.Spawner.pre_spawn_hook(spawner)
        assert (Path(spawner.environment.pop("JUPYTER_CONFIG_PATH")) / "labconfig").is_dir()
        return spawner.environment

    assert told("ada", gpu="none") == {"SERIAL_LORA_DATA": "/d", "CUDA_VISIBLE_DEVICES": ""}
    first, second = (
        {
            "SERIAL_LORA_DATA": "/d",
            "SERIAL_LORA_GPU_SHARE": "0.5",
            "CUDA_VISIBLE_DEVICES": f"GPU-{card}",
        }
        for card in "ab"
    )
    dealt = {"ada": first, "emmy": second, "grace": first, "maria": second, "late": second}
    for name, expected in dealt.items():
        assert told(name, gpu="share", gpu_share=0.5) == expected
    lock = tmp_path / "GPU-b.lock"
    queued = told("emmy", gpu="queue", gpu_share=0.5)
    assert queued == second | {"SERIAL_LORA_GPU_QUEUE": str(lock)}
    assert lock.stat().st_mode & 0o666 == 0o666
    assert told("emmy", gpu="mps", gpu_share=0.5) == second | {
        "CUDA_MPS_PIPE_DIRECTORY": "/run/nvidia-mps/GPU-b",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=12282M",
    }


PAPER = {"environment": {"SERIAL_LORA_SCALE": "paper"}, "memory": "8G", "gpu": "share"}
PAIRS = [f"pair{number}" for number in range(15)]


@pytest.mark.parametrize(
    ("changes", "cards", "words"),
    [
        ({}, [24, 24], None),  # 2 people on each, 0.3 of 24 GiB for each of them
        ({"gpu_share": 0.2}, [24, 24], "sd3 needs 0.30 or more"),
        ({"gpu_share": 0.2, "labs": ["clip", "sam"]}, [24], None),
        ({"gpu_share": 0.6}, [24, 24], "0.47 is the most"),
        ({"learners": PAIRS, "labs": ["sd3"]}, [24] * 4, "4 people do not fit"),
        ({"learners": PAIRS, "gpu": "queue"}, [24] * 4, None),  # only one of them trains
        ({"learners": PAIRS, "gpu_share": 0.09, "gpu": "queue"}, [80], None),
        ({"memory": "3G"}, [24, 24], "memory"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_class(tmp_path, changes, cards, words):
    settings = USUAL | PAPER | {"data": str(tmp_path)} | changes
    cards = [check_class.Card(str(number), gib) for number, gib in enumerate(cards)]
    if words is None:
        check_class.check(settings, cards, planned=True)
        return
    with pytest.raises(SystemExit, match=f"^class.yaml: [^\n]*{words}[^\n]*$"):
        check_class.check(settings, cards, planned=True)


@pytest.mark.parametrize("lab", check_class.WAITING)
def test_what_waits_on_a_card_is_counted_on_the_real_models(lab):
    numbers = sum(tensor.numel() for tensor in ARCHITECTURES[lab].on_meta().state_dict().values())
    gib = (2 if lab == "sd3" else 4) * numbers / 2**30  # bfloat16, else float32
    assert gib == pytest.approx(check_class.WAITING[lab], abs=0.06)


def test_learners_get_the_course_without_its_answers_and_its_updates(configured, tmp_path):
    course, out, theirs = (tmp_path / name for name in ("course", "out.git", "theirs"))

    def git(folder, *words):
        who = ["-c", "user.name=Maria", "-c", "user.email=maria@localhost"]
        run = ["git", "-C", str(folder), *who, *words]
        return subprocess.run(run, check=True, capture_output=True, text=True).stdout

    def commit(text):
        for name in ("notebooks/02.ipynb", "solutions/02.ipynb", "tests/lessons/right_answers.py"):
            (course / name).parent.mkdir(parents=True, exist_ok=True)
            (course / name).write_text(text)
        git(course, "add", "--all")
        git(course, "commit", "--message", text)

    course.mkdir()
    git(course, "init", "--initial-branch=main")
    commit("first")
    told, _ = configured(solutions=False, course=str(course))
    assert "handout.git" in told.Spawner.default_url
    address = hand_out(str(course), "main", out)
    git(tmp_path, "clone", address, str(theirs))
    assert hand_out(str(course), "main", out) == address
    assert git(theirs, "pull").startswith("Already up to date")  # nothing changed
    commit("second")
    hand_out(str(course), "main", out)
    git(theirs, "pull", "--ff-only")
    assert (theirs / "notebooks/02.ipynb").read_text() == "second"
    given = git(theirs, "log", "--all", "--name-only", "--format=").split()
    assert set(given) == {"notebooks/02.ipynb"}
    with pytest.raises(SystemExit, match="^class.yaml: [^\n]*nowhere[^\n]*$"):
        hand_out(str(tmp_path / "nowhere"), "main", out)


def test_a_learner_gets_an_account_once_and_two_folders(configured, tmp_path, monkeypatch):
    _, names = configured()
    made = []

    def getpwnam(name):
        if not made:
            raise KeyError(name)
        return SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid())

    def useradd(command, check):
        made.append(command)
        Path(command[command.index("--home-dir") + 1]).mkdir()

    monkeypatch.setattr(names["pwd"], "getpwnam", getpwnam)
    monkeypatch.setattr(names["subprocess"], "run", useradd)
    spawner = SimpleNamespace(user=SimpleNamespace(name="ada"), environment={})
    for _ in range(2):
        names["make_account"](spawner)
    ((*_, account),) = made
    home, runs = tmp_path / "homes" / "ada", tmp_path / "runs" / "ada"
    assert (tmp_path / "hub").stat().st_mode & 0o077 == 0
    assert account == "class-ada" and home.stat().st_mode & 0o777 == 0o700
    assert runs.is_dir() and (home / "runs").resolve() == runs.resolve()
