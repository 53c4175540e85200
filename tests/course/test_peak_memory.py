"""The most memory that a process has had."""

import subprocess
import sys


def test_the_peak_is_of_this_process_alone():
    """A process that one with much memory started does not count that memory as its own."""
    own = "memory = bytearray(b'x') * 2**24; "
    asked = own + "from serial_lora_course.peak_memory import peak_bytes; print(peak_bytes())"
    code = f"""
import subprocess, sys
memory = bytearray(b"x") * 2**28
print(subprocess.check_output([sys.executable, "-c", {asked!r}], text=True))
{asked}
"""
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    child, parent = map(int, printed.split())
    assert 2**24 < child < 2**28 < parent
