"""What offline means for a process: its environment, and that this machine stays reachable."""

import subprocess
import sys

from serial_lora_course.offline import offline_environment


def test_loopback_stays_reachable_offline():
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(('localhost', s.getsockname()[1])); print('reached')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=offline_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "reached\n", done.stderr
