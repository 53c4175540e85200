"""Real photographs that come with scikit-image and scikit-learn: the backgrounds of tiny scenes.

Nothing is downloaded. Some are held out: no model is trained on a scene over a ``"test"``
photograph, neither in pretraining nor in adapting, and every test scene is over one.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as skimage_data

from serial_lora.errors import require_choice

PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "train": tuple(
        "astronaut brick camera cell chelsea clock flower grass hubble_deep_field "
        "immunohistochemistry moon page retina stereo_motorcycle text".split()
    ),
    "test": ("china", "coffee", "coins", "gravel", "rocket"),
}
SCIKIT_LEARN = ("china", "flower")  # the others are scikit-image's


@lru_cache
def photographs(split: str) -> tuple[np.ndarray, ...]:
    """The photographs of a split, each uint8 of shape (height, width, 3).

    Raises:
        SerialLoRAError: for a split other than "train" or "test".
    """
    require_choice("split", split, PHOTOGRAPHS)
    return tuple(photograph(name) for name in PHOTOGRAPHS[split])


def photograph(name: str) -> np.ndarray:
    """One photograph by its name, uint8 (height, width, 3)."""
    if name in SCIKIT_LEARN:
        folder = Path(find_spec("sklearn").origin).parent  # importing it takes half a second
        return np.asarray(Image.open(folder / "datasets" / "images" / f"{name}.jpg"))
    picture = getattr(skimage_data, name)()
    if isinstance(picture, tuple):  # a stereo pair: the left view
        picture = picture[0]
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])
