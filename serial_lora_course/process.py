"""What a process is told before PyTorch loads: its threads, how long they spin, the memory it keeps.

An OpenMP thread that has nothing to do spins: it keeps its core busy so as to go on at once. Beside
another busy program that costs the program's time and its own, a hundred times over for a model
as small as ours. So waiting threads spin briefly here and sleep then. OpenMP reads
its settings once, when torch loads it: `settle` is called when this package is imported, which the
command line, the lessons and the tools do first. JupyterLab hands it on to its kernels.

glibc gives the memory of a large tensor back to the system as soon as it is freed, and the next step
asks for the same pages again. Kept in the process, they make a training step a seventh faster.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import MutableMapping

SPINS = "2000"
"""How often a waiting thread of GNU's OpenMP (Linux) looks again before it sleeps."""
BLOCK_TIME = "0"
"""Milliseconds that a waiting thread of LLVM's and Intel's OpenMP (macOS, Windows) spins."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

# Numbers of glibc's malloc.h: what is freed stays with the process up to a gigabyte, and tensors of up to
# 32 megabytes, the most that it takes, get no mapping of their own.
KEPT = {"M_TRIM_THRESHOLD": (-1, 2**30), "M_MMAP_THRESHOLD": (-3, 2**25)}

THREADS = "SERIAL_LORA_THREADS"
LEARNERS_PER_MACHINE = 4  # assumed on a class server that says nothing else


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what OpenMP will read and what malloc keeps, unless the user has set it.

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
    if not any(name.startswith("MALLOC_") for name in environment):
        keep_freed_memory()


def keep_freed_memory() -> None:
    """For the next step to use, where the C library is glibc (Linux)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option in KEPT.values():
        mallopt(*option)


def share_of_cores(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """Threads for this process, or None for PyTorch's own choice, which is all cores."""
    fixed = environment.get(THREADS, "")
    if fixed.isdigit() and int(fixed):
        return int(fixed)
    if "JUPYTERHUB_USER" not in environment:
        return None
    limit = environment.get("CPU_LIMIT") or (os.cpu_count() or 1) / LEARNERS_PER_MACHINE
    return max(1, round(float(limit)))
