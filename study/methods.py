"""Every method that the study compares: the labs' own, variants of Serial LoRA, and the field's."""

from __future__ import annotations

from functools import partial

from serial_lora.config import SerialLoRAConfig
from serial_lora_course.labs.methods import METHODS, Method
from study.field import FIELD
from study.variants import BESIDE, TWICE, StudyAdapter, put_before, put_beside

ADAPTERS = {
    "repadapter": ("RepAdapter before attention", "width {}"),
    "lora_qkv": ("LoRA on q, k and v", "rank {}"),
    "lora_tied": ("LoRA with one A", "rank {}"),
    "serial_untied": ("Serial LoRA with three pairs", "rank {}"),
    "serial_ffn": ("Serial LoRA before the feed-forward", "rank {}"),
    "serial_rotated": ("Serial LoRA with W rotated", "rank {}"),
    "serial_random": ("Serial LoRA with W random", "rank {}"),
    "serial_even": ("Serial LoRA with W's stretch even", "rank {}"),
    "serial_uneven": ("Serial LoRA with W's directions random", "rank {}"),
    "repadapter_two": ("RepAdapter in both places", "width {}"),
    "ln_bias": ("LayerNorm and biases", ""),
    "dora": ("DoRA", "rank {}"),
    "vera": ("VeRA", "rank {}"),
    "hra": ("HRA", "{} reflections"),
    "oft": ("OFT", "blocks of {}"),
    "miss": ("MiSS", "rank {}"),
    "fourierft": ("FourierFT", "{:,} frequencies"),
    "randlora": ("RandLoRA", "bases of rank {}"),
}
"""Label, and how the size is written."""


PUT = dict.fromkeys(BESIDE, put_beside) | dict.fromkeys(("repadapter", TWICE), put_before) | FIELD
KINDS = {name: partial(StudyAdapter, method=name, put=put) for name, put in PUT.items()}
KINDS["serial_ffn"] = partial(SerialLoRAConfig, places=("feed_forward",))
KNOWN = METHODS | {
    name: Method(name, label, KINDS[name], size=size) for name, (label, size) in ADAPTERS.items()
}
