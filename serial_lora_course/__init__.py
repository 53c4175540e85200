"""The course around the library: labs, models, data, figures, panels, claims and checks."""

import gc

from serial_lora_course.threads import settle

SETTLED_IN_TIME = settle()
"""Whether PyTorch was loaded after its threads were settled; the doctor says so where it was not."""

# Whatever a lab imports stays: looked through for garbage eight times meanwhile, it took a fifth longer.
gc.set_threshold(*gc.get_threshold()[:2], 100)
