"""Every lab there is. A lab of its own is a file of its own, and a line here."""

from __future__ import annotations

from importlib import import_module

LABS = {
    "clip": (
        "serial_lora_course.labs.clip",
        "Few-shot classification: zero-shot first, then every method, shots and seed.",
    ),
    "sam": (
        "serial_lora_course.labs.sam",
        "Segmentation of boxed objects, measured by Dice: unadapted first, then every method.",
    ),
    "sd3": (
        "serial_lora_course.labs.sd3",
        "Style tuning, measured by FID, KID and CLIP-Score: unadapted first, then every method.",
    ),
}
"""Every lab: the module whose ``LAB`` it is, and what it does. A module is loaded when it is
needed, as each brings a large library of its own."""


def get_lab(name: str) -> type:
    """The lab called ``name``, a subclass of :class:`serial_lora_course.labs.lab.Lab`."""
    from serial_lora.errors import require_choice  # loads PyTorch, for which --help need not wait

    require_choice("lab", name, LABS)
    return import_module(LABS[name][0]).LAB
