"""The lab's tests build small official-looking archives the way the data's tests do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "data"))
