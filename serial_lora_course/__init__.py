"""The course around the library: labs, models, data, figures, lessons and checks."""

from serial_lora_course.threads import settle

SETTLED_IN_TIME = settle()
"""Whether PyTorch was loaded after its threads were settled; the doctor says so where it was not."""
