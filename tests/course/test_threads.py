"""Waiting threads are settled before torch loads, and the user's own settings win."""

import os
import subprocess
import sys

import pytest

from serial_lora_course.threads import SPINS, share_of_cores


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, None),
        ({"SERIAL_LORA_THREADS": "3"}, 3),
        ({"SERIAL_LORA_THREADS": "0"}, None),
        ({"JUPYTERHUB_USER": "ada", "CPU_LIMIT": "2.0"}, 2),
        ({"JUPYTERHUB_USER": "ada", "CPU_LIMIT": "0.5"}, 1),
        ({"JUPYTERHUB_USER": "ada", "CPU_LIMIT": "2.0", "SERIAL_LORA_THREADS": "1"}, 1),
    ],
)
def test_a_class_shares_the_cores(environment, threads):
    assert share_of_cores(environment) == threads


def test_the_command_line_settles_before_torch_loads():
    code = (
        "import os, sys, serial_lora_course;"
        "print('torch' not in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    )
    own = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    environment = {k: v for k, v in os.environ.items() if k not in own}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", SPINS]
