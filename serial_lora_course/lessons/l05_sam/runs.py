"""What `adapt(trip, seed)` of the lesson gives with other seeds, for its last figure and table."""

import numpy as np

#: Mistake -> trained with it, and rightly: mean Dice of seeds 2 and 3, asked with the mistake and asked rightly.
OTHER_SEEDS = {
    "padding left on": np.array([[[0.602, 0.605], [0.709, 0.732]], [[0.576, 0.579], [0.731, 0.732]]]),
    "x and y exchanged": np.array([[[0.320, 0.325], [0.664, 0.681]], [[0.329, 0.321], [0.731, 0.732]]]),
}  # fmt: skip


def other_costs(mistake: str) -> dict[str, str]:
    """Each cost of a mistake with those seeds."""
    (used, mended), (_, ended) = OTHER_SEEDS[mistake]
    costs = {"when used": mended - used, "in the weights": ended - mended}
    return {name: "{:+.3f}, {:+.3f}".format(*cost) for name, cost in costs.items()}


def other_shares(mistake: str, unadapted: float) -> np.ndarray:
    """How much of training's gain over the unadapted Dice is left after mending, with those seeds."""
    (_, mended), (_, ended) = OTHER_SEEDS[mistake]
    return (mended - unadapted) / (ended - unadapted)
