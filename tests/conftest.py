"""All tests run without a network: only addresses of this machine can be reached."""

import os

from serial_lora.course.offline import block_network

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub's client says so at once, without retries
block_network()
