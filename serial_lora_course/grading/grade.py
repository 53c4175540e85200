"""Grading: run learners' notebooks and say, exercise by exercise, who passed what.

::

    serial-lora grade anna/02_parameter_count.ipynb ben/02_parameter_count.ipynb --out grades.csv

Each notebook is copied into a folder of its own, below the system's folder for temporary files,
and run there in a fresh kernel without a network. The kernel may write nowhere else (see
``confinement.py`` for what guards that, and on which systems). After the cell that defines an
exercise's function, the course's own check is run again on what the cell defined
(``judging.py``): the verdict is the check's, and what the notebook printed plays no part.

passed
    the check says right
wrong
    the check says why, or the function raised
open
    the function still raises ``NotImplementedError``
not found
    no cell defines the name that the exercise asks for; where several do, the last counts
not reached
    the cell ended before the definition, took too long, or the kernel was gone by then

What this is no defence against: the check and the learner's code share one process, so a learner
who sets out to deceive it (by rewriting the course's modules while they run, say) can. It reads
what you may read. It limits neither memory nor disk space. Grade people you teach, not strangers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import site
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks.exercises import Exercise, read_exercises
from serial_lora_course.checks.lessons import LESSONS, Lesson, find_lesson
from serial_lora_course.files import write_json
from serial_lora_course.grading import confinement
from serial_lora_course.grading.judging import ABSENT, MIME, OPEN, PASSED, WRONG
from serial_lora_course.offline import offline_environment

NOT_FOUND, NOT_REACHED = "not found", "not reached"
RESULTS = (PASSED, WRONG, OPEN, NOT_FOUND, NOT_REACHED)
MOST_SLOW_CELLS = 3  # after that many the rest of a notebook is not run
KERNEL_START_SECONDS = 300
STOPPING_SECONDS = 20  # for an interrupted cell to give way, and for the last of its output
_OURS = "serial-lora-grade"  # marks the cells that the grader puts between the learner's
_JUDGING = '__import__("serial_lora_course.grading.judging", fromlist=["judging"])'


@dataclass(frozen=True)
class Submission:
    """One learner's notebook, the lesson it belongs to, and the exercises that this lesson has."""

    path: Path
    notebook: nbformat.NotebookNode
    lesson: Lesson
    exercises: list[Exercise]


@dataclass(frozen=True)
class Verdict:
    """How one exercise stands: ``result`` is one of :data:`RESULTS`.

    ``why`` is the check's likely cause, what the check verified, or what kept it from being asked;
    ``seen`` is what the check compared, where it failed.
    """

    exercise: Exercise
    result: str
    why: str = ""
    seen: str = ""


@dataclass
class Graded:
    """A submission with a verdict for each exercise, in order.

    ``troubles`` are the errors of cells that belong to no exercise, such as a missing import.
    """

    submission: Submission
    verdicts: list[Verdict] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    protection: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> int:
        """How many exercises are right."""
        return sum(verdict.result == PASSED for verdict in self.verdicts)


# ---------------------------------------------------------------------------------------------
# Reading


def read_submission(path: Path, solutions: Path | None = None) -> Submission:
    """Read a learner's notebook and find out which lesson it is.

    Args:
        path: the notebook.
        solutions: the folder of solved lessons; found by itself when left out.

    Raises:
        SerialLoRAError: no such file, not a notebook, not a lesson of the course.
    """
    if not path.is_file():
        raise SerialLoRAError(f"{path}: there is no such file.")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat has no error of its own for text that is no notebook
        raise SerialLoRAError(f"{path}: this is not a Jupyter notebook.") from error
    lesson = _lesson_of(notebook)
    if lesson is None:
        raise SerialLoRAError(
            f"{path}: this is not a lesson of the course: it has neither a lesson_card() call "
            'nor a heading such as "# 02 · ...".'
        )
    solved = (solutions or find_solutions()) / f"{lesson.stem}.ipynb"
    if not solved.is_file():
        raise SerialLoRAError(f"{path}: the solved lesson {solved} is missing.")
    return Submission(path, notebook, lesson, read_exercises(nbformat.read(solved, as_version=4)))


def find_solutions(start: Path | None = None) -> Path:
    """The folder ``solutions/`` of the course: here, further up, or beside the package."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if any((folder / "solutions").glob("[0-9][0-9]_*.ipynb")):
            return folder / "solutions"
    raise SerialLoRAError(
        "The solved lessons are not here: run this in the course's folder, which has solutions/."
    )


def _lesson_of(notebook: nbformat.NotebookNode) -> Lesson | None:
    patterns = (
        ("code", re.compile(r'^lesson_card\(["\'](\d\d)["\']\)', re.MULTILINE)),
        ("markdown", re.compile(r"^# (\d\d) · ", re.MULTILINE)),
    )
    known = {lesson.number for lesson in LESSONS}
    for kind, pattern in patterns:
        for cell in notebook.cells:
            found = pattern.search(cell.source) if cell.cell_type == kind else None
            if found and found[1] in known:
                return find_lesson(found[1])
    return None


def _defining_cell(notebook: nbformat.NotebookNode, name: str) -> int | None:
    """The index of the last code cell that gives ``name`` a meaning at its left margin."""
    definition = re.compile(rf"^(?:(?:def|class)\s+{name}\b|{name}\s*[:=](?!=))", re.MULTILINE)
    found = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and definition.search(cell.source)
    ]
    return found[-1] if found else None


# ---------------------------------------------------------------------------------------------
# Running


class _Client(NotebookClient):
    """Runs cells, and keeps outputs of the grader's own alone: a learner's may be endless."""

    def process_message(self, msg: dict, cell: nbformat.NotebookNode, cell_index: int) -> Any:
        if msg["msg_type"] == "status" or _OURS in cell.metadata:
            return super().process_message(msg, cell, cell_index)
        return None


class _Run:
    """One notebook in one kernel."""

    def __init__(self, submission: Submission, timeout: int):
        self.submission, self.timeout = submission, timeout
        self.slow_cells = 0
        self.ended = ""  # why no further cell can run
        self._reply: dict = {}
        self._client: _Client | None = None

    def close(self) -> None:
        """Let go of the connection to the kernel, if there is one."""
        if self._client is not None:
            self._client.kc.stop_channels()

    async def grade(self, manager: AsyncKernelManager) -> Graded:
        """Run every cell in order, and each exercise's check after its last cell."""
        graded = Graded(self.submission)
        started = time.perf_counter()
        exercises = self.submission.exercises
        places = {
            exercise: {n: _defining_cell(self.submission.notebook, n) for n in exercise.names}
            for exercise in exercises
        }
        self._client = self._connect(manager)
        numbers = [exercise.number for exercise in exercises]
        facts = await self._ours(f"start({numbers!r})")
        graded.protection = facts.get("protection", "")
        if not graded.protection:
            raise SerialLoRAError(f"the kernel could not be prepared: {facts.get('problem')}")
        verdicts: dict[str, Verdict] = {}
        for index, cell in enumerate(self.submission.notebook.cells):
            if cell.cell_type != "code":
                continue
            here = {e: names for e, names in places.items() if index in names.values()}
            for names in here.values():
                defined = [name for name, place in names.items() if place == index]
                await self._ours(f"remember({defined!r})")
            problem = await self._learners(cell.source)
            if problem and not here and not self.ended:
                graded.troubles.append(f"the cell {_first_line(cell.source)!r} ended: {problem}")
            for exercise, names in here.items():
                complete = None not in names.values() and index == max(names.values())
                if complete:
                    verdicts[exercise.number] = await self._judge(exercise, problem)
        graded.verdicts = [verdicts.get(e.number) or _never_defined(e, places) for e in exercises]
        graded.seconds = time.perf_counter() - started
        return graded

    def _connect(self, manager: AsyncKernelManager) -> _Client:
        quiet = logging.getLogger("serial_lora.grade")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        client = _Client(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()]),  # the client puts each
            # cell that it ran at the place that it is told, which is always this one
            km=manager,
            timeout_func=self._seconds_for,
            interrupt_on_timeout=True,
            error_on_timeout={"ename": "CellTimeoutError", "evalue": "", "traceback": []},
            iopub_timeout=STOPPING_SECONDS,
            raise_on_iopub_timeout=True,
            allow_errors=True,
            record_timing=False,
            store_widget_state=False,
            log=quiet,
            on_cell_executed=self._keep_reply,
        )
        client.kc = manager.client()
        client.kc.start_channels()
        return client

    def _seconds_for(self, cell: nbformat.NotebookNode) -> int:
        """The first of our cells loads PyTorch, which no learner should be blamed for."""
        return KERNEL_START_SECONDS if cell.metadata.get(_OURS) == "start" else self.timeout

    def _keep_reply(self, execute_reply: dict | None, **_: Any) -> None:
        self._reply = (execute_reply or {}).get("content", {})

    async def _execute(self, cell: nbformat.NotebookNode) -> str:
        """Run one cell; what went wrong, empty when nothing did."""
        if self.ended:
            return self.ended
        self._reply = {}
        try:
            await self._client.async_execute_cell(cell, 0, store_history=_OURS not in cell.metadata)
        except CellTimeoutError:
            self.ended = f"a cell took longer than {self.timeout} seconds and could not be stopped"
            return self.ended
        except DeadKernelError:
            if await self._client.km.is_alive():  # somebody pressed Ctrl-C; the client hides that
                raise asyncio.CancelledError from None
            self.ended = "the kernel ended"
            return self.ended
        name, text = self._reply.get("ename", ""), self._reply.get("evalue", "")
        if name == "CellTimeoutError":
            self.slow_cells += 1
            if self.slow_cells >= MOST_SLOW_CELLS:
                self.ended = f"stopped after {MOST_SLOW_CELLS} cells that took too long"
            return f"the cell took longer than {self.timeout} seconds"
        return f"{name}: {text}" if self._reply.get("status") == "error" else ""

    async def _learners(self, source: str) -> str:
        return await self._execute(nbformat.v4.new_code_cell(source))

    async def _ours(self, call: str) -> dict[str, str]:
        """Call a function of ``judging.py`` in the kernel; the facts that it tells."""
        kind = call.partition("(")[0]
        cell = nbformat.v4.new_code_cell(f"{_JUDGING}.{call}", metadata={_OURS: kind})
        problem = await self._execute(cell)
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        told = [each[MIME] for each in data if MIME in each]
        return dict(told[-1]) if told else {"problem": problem}

    async def _judge(self, exercise: Exercise, problem: str) -> Verdict:
        if problem.startswith("the cell took longer") or self.ended:
            return Verdict(exercise, NOT_REACHED, problem or self.ended)
        facts = await self._ours(
            f"judge({exercise.number!r}, {list(exercise.names)!r}, {bool(problem)})"
        )
        result = facts.get("result")
        if result in (PASSED, WRONG, OPEN):
            return Verdict(exercise, result, facts.get("why", ""), facts.get("seen", ""))
        if result == ABSENT:
            return Verdict(exercise, NOT_REACHED, problem or "the cell ended before the definition")
        why = facts.get("problem", "") or "the check gave no answer"
        return Verdict(exercise, NOT_REACHED, why.replace("the cell took", "the check took"))


def _first_line(source: str) -> str:
    lines = source.strip().splitlines()
    return lines[0][:60] if lines else ""


def _never_defined(exercise: Exercise, places: dict) -> Verdict:
    names = [name for name, place in places[exercise].items() if place is None]
    return Verdict(exercise, NOT_FOUND, f"no cell defines {' and '.join(names)}")


async def _grade_one(submission: Submission, timeout: int, threads: int) -> Graded:
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as name:
        scratch = Path(name).resolve()
        work = scratch / "notebook"
        work.mkdir()
        shutil.copyfile(submission.path, work / submission.path.name)
        manager = _kernel_in(scratch)
        environment = scratch_environment(scratch, threads)
        run = _Run(submission, timeout)
        try:
            with open(os.devnull, "w") as nowhere:  # a kernel's own remarks help nobody here
                await manager.start_kernel(
                    env=environment, cwd=str(work), stdout=nowhere, stderr=nowhere
                )
            await _wait_until_ready(manager)
            return await run.grade(manager)
        except SerialLoRAError as error:  # the other notebooks' results are worth having
            return Graded(
                submission, [Verdict(e, NOT_REACHED, str(error)) for e in submission.exercises]
            )
        finally:
            run.close()
            await _end(manager)


async def _wait_until_ready(manager: AsyncKernelManager) -> None:
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=KERNEL_START_SECONDS)
    except RuntimeError as error:
        raise SerialLoRAError(f"the kernel did not start: {error}") from error
    finally:
        client.stop_channels()


async def _end(manager: AsyncKernelManager) -> None:
    """End the kernel and whatever it left running in its group of processes."""
    if manager.has_kernel:
        group = getattr(manager.provisioner, "pgid", None)
        await manager.shutdown_kernel(now=True)
        if group and hasattr(os, "killpg") and group != os.getpgrp():
            try:
                os.killpg(group, 9)
            except (ProcessLookupError, PermissionError):
                pass


def _kernel_in(scratch: Path) -> AsyncKernelManager:
    """A kernel of this very Python that is confined to ``scratch`` before it starts."""
    spec = scratch / "kernels" / "graded"
    command = [
        sys.executable,
        confinement.__file__,
        str(scratch),
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
        "--IPKernelApp.log_level=50",
    ]
    write_json(
        spec / "kernel.json", {"argv": command, "display_name": "graded", "language": "python"}
    )
    manager = AsyncKernelManager(
        kernel_name="graded", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent)])
    )
    manager.connection_file = str(scratch / "connection.json")
    return manager


def scratch_environment(scratch: Path, threads: int) -> dict[str, str]:
    """The environment of a graded kernel: offline, on the CPU, every folder inside ``scratch``."""
    places = {
        "HOME": "home",
        "USERPROFILE": "home",
        "TMPDIR": "tmp",
        "TEMP": "tmp",
        "TMP": "tmp",
        "XDG_CACHE_HOME": "home/cache",
        "XDG_CONFIG_HOME": "home/config",
        "XDG_DATA_HOME": "home/data",
        "XDG_STATE_HOME": "home/state",
        "XDG_RUNTIME_DIR": "run",
        "IPYTHONDIR": "home/ipython",
        "JUPYTER_CONFIG_DIR": "home/jupyter",
        "JUPYTER_DATA_DIR": "home/jupyter-data",
        "JUPYTER_RUNTIME_DIR": "run",
        "MPLCONFIGDIR": "home/matplotlib",
        "HF_HOME": "home/huggingface",
        "TORCH_HOME": "home/torch",
        "SERIAL_LORA_DATA": "data",
    }
    environment = offline_environment()
    for variable, place in places.items():
        folder = scratch / place
        folder.mkdir(parents=True, exist_ok=True)
        environment[variable] = str(folder)
    fonts = Path(_matplotlib_cache())
    _lend(fonts, scratch / "home" / "matplotlib", "fontlist-*.json")
    environment.pop("PYTHONSTARTUP", None)
    environment["PYTHONUSERBASE"] = site.getuserbase()  # packages may lie in the real home
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["CUDA_VISIBLE_DEVICES"] = ""
    environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def _matplotlib_cache() -> str:
    import matplotlib

    return matplotlib.get_cachedir()


def _lend(source: Path, target: Path, pattern: str) -> None:
    """Let the kernel read files that are made slowly; through a link it cannot write to them."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob(pattern):
        try:
            (target / path.name).symlink_to(path.resolve())
        except OSError:  # links are a privilege on Windows
            shutil.copyfile(path, target / path.name)


def grade(
    submissions: Sequence[Submission],
    timeout: int = 170,
    jobs: int = 1,
    on_graded: Callable[[Graded], None] = lambda graded: None,
) -> list[Graded]:
    """Run every submission in a kernel of its own and return the verdicts, in the same order.

    Args:
        submissions: what :func:`read_submission` gives.
        timeout: seconds that one cell may take.
        jobs: how many notebooks run at the same time; they share the CPU's cores.
        on_graded: called with each result as soon as it is there.

    Raises:
        SerialLoRAError: not one kernel could be started.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)

    async def all_of_them() -> list[Graded]:
        turn = asyncio.Semaphore(jobs)

        async def one(submission: Submission) -> Graded:
            async with turn:
                graded = await _grade_one(submission, timeout, threads)
            on_graded(graded)
            return graded

        return list(await asyncio.gather(*map(one, submissions)))

    everything = asyncio.run(all_of_them())
    if everything and not any(graded.protection for graded in everything):
        why = everything[0].verdicts[0].why if everything[0].verdicts else ""
        raise SerialLoRAError(
            f"No notebook could be run ({why}); `serial-lora doctor` says whether this machine is "
            "ready."
        )
    return everything
