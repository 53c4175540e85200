"""Every method that the study compares: the labs' own, variants of Serial LoRA, and the field's."""

from __future__ import annotations

from functools import partial

from serial_lora.config import SerialLoRAConfig
from serial_lora_course.labs.methods import METHODS, Method
from study.variants import StudyAdapter

ADAPTERS = {
    "repadapter": ("RepAdapter before attention", "width {}"),
    "lora_qkv": ("LoRA on q, k and v", "rank {}"),
    "lora_tied": ("LoRA with one A", "rank {}"),
    "serial_untied": ("Serial LoRA with three pairs", "rank {}"),
    "serial_ffn": ("Serial LoRA before the feed-forward", "rank {}"),
    "serial_rotated": ("Serial LoRA with W rotated", "rank {}"),
    "serial_random": ("Serial LoRA with W random", "rank {}"),
}
"""Label, and how the size is written."""
FINISHED = {
    "repadapter_two": ("RepAdapter in both places", "width {}"),
    "ln_bias": ("LayerNorm and biases", ""),
    "dora": ("DoRA", "rank {}"),
    "vera": ("VeRA", "rank {}"),
    "hra": ("HRA", "{} reflections"),
    "oft": ("OFT", "blocks of {}"),
    "miss": ("MiSS", "rank {}"),
    "fourierft": ("FourierFT", "{:,} frequencies"),
    "randlora": ("RandLoRA", "bases of rank {}"),
    "tip_adapter_f": ("Tip-Adapter-F", ""),
    "lp_plus_plus": ("LP++'s classifier", ""),
    "prolip": ("ProLIP", ""),
}
"""The field's, PEFT's own code on q, k, v and out or heads on CLIP's cached features: not run again."""
KINDS = {"serial_ffn": partial(SerialLoRAConfig, places=("feed_forward",))}
KNOWN = METHODS | {
    name: Method(name, label, KINDS.get(name, partial(StudyAdapter, method=name)), size=size)
    for name, (label, size) in (ADAPTERS | FINISHED).items()
}
