"""Slurm's script and the cloud's file, as far as they can be tried on one machine."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from serial_lora_course.labs.records import read_records

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "slurm.sh"
needs_ray = pytest.mark.skipif(
    shutil.which("ray") is None, reason='a cluster needs Ray: pip install ".[cluster]"'
)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_script_is_sound():
    subprocess.run(["shellcheck", SCRIPT], check=True)


def test_it_says_what_it_needs():
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2 and "sbatch cluster/slurm.sh lab" in done.stderr


@needs_ray
@pytest.mark.slow
def test_the_script_runs_a_grid_where_slurm_is_made_up(tmp_path):
    """One node, whose `srun` starts what it is given; Ray and the command are the real ones."""
    stand_ins = {
        "scontrol": 'test "$*" = "show hostnames here" && echo 127.0.0.1',
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    }
    for name, line in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_ID": "7", "JOB_NODELIST": "here", "JOB_NUM_NODES": "1", "CPUS_PER_TASK": "1"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_TMPDIR": "/tmp/ray-slurm-test"}
    out = tmp_path / "runs" / "clip.jsonl"
    asked = "lab clip --dataset nature --methods serial_lora --shots 1 --seeds 1 --min-steps 2"
    done = subprocess.run(
        ["bash", SCRIPT, *asked.split(), "--out", out],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = read_records(out)
    assert record.dataset == "nature" and "Records:" in done.stdout
    assert (tmp_path / ".ray" / "auth_token").stat().st_size > 20


def test_the_clouds_file_is_one_that_ray_knows():
    autoscaler = pytest.importorskip("ray.autoscaler", reason='pip install ".[cluster]"')
    schema = json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text("utf-8"))
    page = (ROOT / "docs" / "cloud.md").read_text("utf-8")
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError, match="heads"):
        jsonschema.validate(config | {"heads": 1}, schema)
