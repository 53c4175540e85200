"""Run a notebook and tell what its cells showed, a line for each: what the sandbox shuts in.

::

    python -m serial_lora_course.grading.inside LIMITS < notebook.ipynb > lines

Client and kernel both run here, so whatever a notebook does to its grader, it does to this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_output

from serial_lora_course.grading.text import MOST, plain_outputs

TO_STOP = 10  # seconds, at most, for an interrupted cell
# A cell may have changed the checks in memory; those that a check cell imports come from the disk.
FRESH = """\
import sys
rooms = ("serial_lora_course.checking", "serial_lora_course.lessons")
for _ in [name for name in sys.modules if name.startswith(rooms)]:
    del sys.modules[_]"""


class Client(NotebookClient):
    """Runs cells, and keeps the first outputs of each, since a learner's may be endless."""

    def output(self, outs: list, *rest) -> None:
        """Keep an output, or pass it over."""
        if sum(len(str(out)) for out in outs[-MOST:]) < 10**7 and len(outs) < MOST:
            super().output(outs, *rest)


def limit(limits: dict[str, int]) -> None:
    """Hold this process and all that it starts to these limits of the system, for good."""
    import resource  # here, since Windows has none, and sets no limits

    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


async def run(notebook: nbformat.NotebookNode, seconds: int, tell) -> None:
    """Run every code cell, and tell of each as soon as it has run; stop where a kernel cannot go on."""
    client = Client(notebook, timeout=seconds, allow_errors=True, store_widget_state=False)
    client.km = client.create_kernel_manager()
    await client.async_start_new_kernel()
    await client.async_start_new_kernel_client()
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        trouble, ended = "", False
        if cell.metadata.get("nbgrader", {}).get("grade"):
            client.kc.execute(FRESH, silent=True)
        try:
            await client.async_execute_cell(cell, index)
        except CellTimeoutError:
            trouble = f"the cell took longer than {seconds} seconds"
            await client.km.interrupt_kernel()
            try:
                await client.kc.kernel_info(reply=True, timeout=min(seconds, TO_STOP))
            except TimeoutError:
                trouble, ended = f"{trouble} and could not be stopped", True
        except DeadKernelError:
            trouble, ended = "the kernel ended", True
        if trouble:
            error = new_output("error", ename="NotReached", evalue=trouble, traceback=[trouble])
            cell.outputs.insert(0, error)
        outputs = plain_outputs(cell.outputs)
        tell({"cell": index, "outputs": outputs, "ended": trouble if ended else ""})
        if ended:
            break
    await client.km.shutdown_kernel(now=True)


def main() -> None:
    """Read a notebook from standard input, run it, and write to what standard output was."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the kernel and its programs inherit

    def tell(line: dict) -> None:
        print(json.dumps(line), file=told, flush=True)

    settings = json.loads(sys.argv[1])
    if settings["limits"]:
        limit(settings["limits"])
    asyncio.run(run(nbformat.read(sys.stdin, as_version=4), settings["seconds"], tell))


if __name__ == "__main__":
    main()
