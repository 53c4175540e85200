"""Run a notebook and tell what its cells showed, a line for each: what the sandbox shuts in.

::

    python -m serial_lora_course.grading.inside LIMITS < notebook.ipynb > lines

Client and kernel both run here, so whatever a notebook does to its grader, it does to this process.
"""

from __future__ import annotations

import json
import os
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.client import CellExecutionComplete
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_output

from serial_lora_course.grading.text import MOST, plain_outputs

# A cell may have changed the checks in memory; those that a check cell imports come from the disk.
FRESH = """\
import sys
rooms = ("serial_lora_course.checking", "serial_lora_course.lessons")
for _ in [name for name in sys.modules if name.startswith(rooms)]:
    del sys.modules[_]"""


class Client(NotebookClient):
    """Runs cells, and keeps the first outputs of each, since a learner's may be endless."""

    def process_message(self, msg: dict, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Take a message of the kernel, or pass it over: a learner's code can send odd ones."""
        try:
            return super().process_message(msg, cell, cell_index)
        except CellExecutionComplete:  # how nbclient says that the cell has ended
            raise
        except Exception:
            return None

    def output(self, outs: list, *rest) -> None:
        """Keep an output, or pass it over."""
        if sum(len(str(out)) for out in outs[-MOST:]) < 10**7 and len(outs) < MOST:
            super().output(outs, *rest)


def main() -> None:
    """Read a notebook from standard input, run it, and write to what standard output was."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the kernel and its programs inherit
    settings = json.loads(sys.argv[1])
    for name, most in settings["limits"].items():
        import resource  # Windows has none, and sets no limits

        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    late = f"the cell took longer than {settings['seconds']} seconds"
    too_long = {"ename": "TooLong", "evalue": late, "traceback": [late]}

    def before(cell: nbformat.NotebookNode, **_) -> None:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            client.kc.execute(FRESH, silent=True)

    def tell(cell: nbformat.NotebookNode, cell_index: int, execute_reply: dict, **_) -> None:
        if execute_reply["content"].get("ename") == "TooLong":
            cell.outputs.insert(0, new_output("error", **too_long))
        line = {"cell": cell_index, "outputs": plain_outputs(cell.outputs)}
        print(json.dumps(line), file=told, flush=True)

    client = Client(
        nbformat.read(sys.stdin, as_version=4),
        timeout=settings["seconds"],
        interrupt_on_timeout=True,
        shutdown_kernel="immediate",
        error_on_timeout=too_long,
        allow_errors=True,
        store_widget_state=False,
        on_cell_execute=before,
        on_cell_executed=tell,
    )
    try:
        client.execute()
    except DeadKernelError:
        print(json.dumps({"ended": "the kernel ended"}), file=told, flush=True)


if __name__ == "__main__":
    main()
