"""All tests run without a network: only addresses of this machine can be reached."""

from serial_lora.course.offline import block_network

block_network()
