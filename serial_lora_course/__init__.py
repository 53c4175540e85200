"""The course around the library: labs, models, data, figures, lessons and checks."""

from serial_lora_course.threads import settle

settle()  # before PyTorch is loaded, which reads its threads' settings once
