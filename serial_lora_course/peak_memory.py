"""The most memory that a process has had: what lesson cards and `benchmarks` say of a learner's."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most bytes of memory that this process has had at once."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # getrusage counts what the process that started this one had, too
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
