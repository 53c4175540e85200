"""How long a grid takes: its runs, in order, each begun by whichever worker is free first.

    outcome = simulate([600.0] * 500, workers=8, random=np.random.default_rng(1))
    outcome.seconds / 3600, outcome.lost_workers

Runs take longer than they should on a slow machine, and workers end before their run does; what that
costs is simulated, as it depends on what is running then. Nothing here is measured.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Troubles:
    """What makes a grid take longer than its runs.

    Attributes:
        overhead: seconds of each run beside its own.
        begin: seconds until a worker can do its first run, also one in place of another.
        slow: the share of runs that are on a slow machine; slower: how many times as long they take.
        life: mean seconds until a worker is lost.
        saved: seconds between two states that a run goes on from; infinity where none can be seen by
            the next worker.
    """

    overhead: float = 0.0
    begin: float = 0.0
    slow: float = 0.0
    slower: float = 1.0
    life: float = np.inf
    saved: float = np.inf


@dataclass(frozen=True)
class Outcome:
    """What became of a grid.

    Attributes:
        seconds: until the last run was done.
        lost_workers: how many ended before their run did.
        wasted: seconds of work that were lost with them.
        idle: the share of all workers' seconds in which they had no run.
    """

    seconds: float
    lost_workers: int
    wasted: float
    idle: float


def simulate(
    runs: Sequence[float],
    workers: int,
    random: np.random.Generator,
    troubles: Troubles = Troubles(),
) -> Outcome:
    """One way in which a grid may go.

    Args:
        runs: seconds of each, in the order in which they begin.
    """
    slow = random.random(len(runs)) < troubles.slow
    left = deque(np.where(slow, troubles.slower, 1.0) * np.asarray(runs, float))
    free = [troubles.begin] * min(workers, len(left))  # a heap: when each worker is free
    end, busy, lost, wasted = 0.0, 0.0, 0, 0.0
    while left:
        now, run = heapq.heappop(free), left.popleft()
        # A worker's death has no memory, so it may be drawn anew for each run.
        lives = random.exponential(troubles.life) if np.isfinite(troubles.life) else np.inf
        needed = run + troubles.overhead
        if lives >= needed:
            busy, end = busy + needed, max(end, now + needed)
            heapq.heappush(free, now + needed)
            continue
        trained = max(0.0, lives - troubles.overhead)
        kept = trained // troubles.saved * troubles.saved if np.isfinite(troubles.saved) else 0.0
        lost, wasted, busy = lost + 1, wasted + lives - kept, busy + lives
        left.appendleft(run - kept)
        heapq.heappush(free, now + lives + troubles.begin)
    return Outcome(end, lost, wasted, 1 - busy / (end * len(free)) if end else 0.0)
