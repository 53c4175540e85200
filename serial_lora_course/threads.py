"""How many threads PyTorch computes with, and how long they spin while they wait for one another.

An OpenMP thread that has nothing to do spins: it keeps its core busy so as to go on at once. Beside
another busy program that costs the program's time and its own, a hundred times over for a model
as small as ours. So waiting threads spin briefly here and sleep then. OpenMP reads
its settings once, when torch loads it: `settle` is called when this package is imported, which the
command line, the lessons and the tools do first. JupyterLab hands it on to its kernels.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "2000"
"""How often a waiting thread of GNU's OpenMP (Linux) looks again before it sleeps."""
BLOCK_TIME = "0"
"""Milliseconds that a waiting thread of LLVM's and Intel's OpenMP (macOS, Windows) spins."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

THREADS = "SERIAL_LORA_THREADS"
LEARNERS_PER_MACHINE = 4  # assumed on a class server that says nothing else


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what OpenMP will read, unless the user has set it.

    Args:
        environment: of this process and those it starts. `SERIAL_LORA_THREADS` fixes the number of
            threads, for an administrator to set. Under JupyterHub it is otherwise the server's limit of
            cores, or a quarter of the machine's. Any OMP setting of the user's own wins.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS
        environment["KMP_BLOCKTIME"] = BLOCK_TIME
    if "OMP_NUM_THREADS" not in environment and (threads := share_of_cores(environment)):
        environment["OMP_NUM_THREADS"] = str(threads)


def share_of_cores(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """Threads for this process, or None for PyTorch's own choice, which is all cores."""
    fixed = environment.get(THREADS, "")
    if fixed.isdigit() and int(fixed):
        return int(fixed)
    if "JUPYTERHUB_USER" not in environment:
        return None
    limit = environment.get("CPU_LIMIT") or (os.cpu_count() or 1) / LEARNERS_PER_MACHINE
    return max(1, round(float(limit)))
