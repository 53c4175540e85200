"""As much of Ray as a grid asks for, in this process: what is sent is pickled, and answers come in order."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any


def _sent(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


class LostError(Exception):
    """An actor that ended."""


class Actor:
    """One of its methods is called by ``actor.method.remote(...)``, and answers when it is asked."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.worker, name)
        return SimpleNamespace(remote=lambda *arguments: Future(method, _sent(arguments)))


class Future:
    def __init__(self, method: Any, arguments: Any) -> None:
        self.method, self.arguments = method, arguments


class PretendRay:
    """Two machines of a core each; ``lost`` counts the answers that a lost worker leaves out."""

    exceptions = SimpleNamespace(RayError=LostError, RayActorError=LostError)

    def __init__(self, lost: int = 0) -> None:
        self.lost, self.killed = lost, 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": alive, "Resources": {"CPU": 1.0}} for alive in (True, True, False)]

    def remote(self, **options: Any) -> Any:
        assert options["max_restarts"] == -1 and options["max_task_retries"] > 0
        return lambda kind: SimpleNamespace(remote=lambda *some: Actor(kind(*_sent(some))))

    def wait(self, futures: list[Future], num_returns: int) -> tuple[list[Future], list[Future]]:
        return futures[:num_returns], futures[num_returns:]

    def get(self, future: Future) -> Any:
        if self.lost:
            self.lost -= 1
            raise LostError
        return _sent(future.method(*future.arguments))

    def kill(self, actor: Actor) -> None:
        self.killed += 1
