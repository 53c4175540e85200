"""What `adapt(trip, seed)` of the lesson gives with other seeds, for its last figure and table."""

import numpy as np

#: Mistake -> trained with it, and rightly: mean Dice of seeds 2 and 3, asked with the mistake and asked rightly.
OTHER_SEEDS = {
    "padding left on": np.array([[[0.602, 0.605], [0.709, 0.732]], [[0.576, 0.579], [0.731, 0.732]]]),
    "x and y exchanged": np.array([[[0.320, 0.325], [0.664, 0.681]], [[0.329, 0.321], [0.731, 0.732]]]),
}  # fmt: skip


def other_seeds(mistake: str, unadapted: float) -> dict[str, str]:
    """Both costs of a mistake with those seeds, and what the mended weights gain over the unadapted Dice."""
    (used, mended), (_, ended) = OTHER_SEEDS[mistake]
    rows = {"cost when used": mended - used, "cost in the weights": ended - mended}
    rows["mended - not adapted"] = mended - unadapted
    return {name: "stored seeds 2, 3: {:+.3f}, {:+.3f}".format(*row) for name, row in rows.items()}
