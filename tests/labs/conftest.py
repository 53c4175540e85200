"""The labs' tests run on the CPU everywhere, and build archives as the data's tests do."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "data"))

os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # their numbers are compared with a CPU's
