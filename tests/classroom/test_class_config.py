"""What class.yaml may say, and what follows from it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from traitlets.config.loader import Config

from tools import ROOT

HERE = ROOT / "classroom"
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
        ({"text": "a: b: c"}, "YAML"),
    ],
)
def test_a_mistake_ends_the_hub_in_one_sentence(configured, changes, words):
    with pytest.raises(SystemExit, match=f"^class.yaml: [^\n]*{words}[^\n]*$"):
        configured(**changes)


def test_each_way_to_share_a_gpu_sets_what_the_course_and_the_driver_read(
    configured, tmp_path, monkeypatch
):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 24564\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def told(**changes):
        environment = dict(configured(data="/d", **changes)[0].Spawner.environment)
        assert (Path(environment.pop("JUPYTER_CONFIG_PATH")) / "labconfig").is_dir()
        return environment

    assert told(gpu="none") == {"SERIAL_LORA_DATA": "/d", "CUDA_VISIBLE_DEVICES": ""}
    share = {"SERIAL_LORA_DATA": "/d", "SERIAL_LORA_GPU_SHARE": "0.5"}
    assert told(gpu="share", gpu_share=0.5) == share
    lock = tmp_path / "gpu.lock"
    assert told(gpu="queue", gpu_share=0.5) == share | {"SERIAL_LORA_GPU_QUEUE": str(lock)}
    assert lock.stat().st_mode & 0o666 == 0o666
    mps = told(gpu="mps", gpu_share=0.5)
    assert mps["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=12282M"


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
    spawner = SimpleNamespace(user=SimpleNamespace(name="ada"))
    for _ in range(2):
        names["make_account"](spawner)
    ((*_, account),) = made
    home, runs = tmp_path / "homes" / "ada", tmp_path / "runs" / "ada"
    assert (tmp_path / "hub").stat().st_mode & 0o077 == 0
    assert account == "class-ada" and home.stat().st_mode & 0o777 == 0o700
    assert runs.is_dir() and (home / "runs").resolve() == runs.resolve()
