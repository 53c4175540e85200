"""The course's Jupyter kernel: ipykernel, started after PyTorch's threads are settled.

    python -m serial_lora_course.kernel install     have this environment's Jupyter start it

A kernelspec may carry environment variables, but they would overrule the user's own; so the kernel
is a module of this package, whose import settles what the user has left open.
"""

from __future__ import annotations

import sys

from ipykernel.kernelapp import launch_new_instance
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager

NAME = "python3"  # what notebooks of any origin ask for
COMMAND = [sys.executable, "-m", "serial_lora_course.kernel", "-f", "{connection_file}"]


def install() -> str:
    """Make it the kernel of this environment; the folder of its kernelspec."""
    folder = write_kernel_spec(overrides={"argv": COMMAND})
    return KernelSpecManager().install_kernel_spec(folder, NAME, prefix=sys.prefix)


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        from serial_lora_course.door import enter  # loads PyTorch, for which no kernel should wait

        enter(
            "kernel", lambda _: print(f"Jupyter's kernel {NAME} is now the course's: {install()}")
        )
    else:
        launch_new_instance()
