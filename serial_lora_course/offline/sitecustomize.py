"""Put this folder on PYTHONPATH and every Python process started from there is offline.

``make test`` and the notebook builder do so for the kernels that run lessons: a lesson that asks
for anything beyond this machine fails with one clear sentence. Only the loopback addresses stay
reachable. The standard library alone is used, since this runs before anything else.

Nor do they wait a second for the grammars of web addresses that jsonschema, and so nbformat, builds
where a package for them is installed: no notebook has an address to be judged by them; nor another
one to look through what is imported for garbage, a million objects, 700 new ones at a time.
"""

import gc
import socket
import sys

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


class NetworkBlocked(OSError):
    """Something asked for the network where lessons and tests run without one."""


def _refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if not isinstance(address, tuple):  # a socket in the file system
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not host or host.startswith(_LOOPBACK) or host == socket.gethostname():
        return
    raise NetworkBlocked(f"The network is blocked here, and something asked for {host}.")


if not getattr(sys, "_serial_lora_offline", False):  # a process is blocked once, and for good
    sys._serial_lora_offline = True
    sys.addaudithook(_refuse)
sys.modules.setdefault("rfc3987_syntax", None)  # taken as a package that is not installed
gc.set_threshold(50_000, 20, 20)
