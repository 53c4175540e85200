"""Every method that the study compares: the labs' own, variants of Serial LoRA, and the field's."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from torch import nn

from serial_lora.attention import find_attention_sites
from serial_lora.config import AdapterConfig
from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora_course.labs.methods import METHODS, Method
from study.variants import BEFORE, BESIDE, put_before, put_beside, train_norms_and_biases


@dataclass(frozen=True)
class StudyAdapter(AdapterConfig):
    """An adapter of the study; the rank is its size, whatever that is."""

    kind: str = ""

    @property
    def method(self) -> str:
        return self.kind

    def put_in(self, model: nn.Module, undo: ExitStack) -> None:
        """Freeze the model and put fresh adapters into it, until ``undo`` closes."""
        sites = find_attention_sites(model, self.towers, self.blocks, self.stream)
        if self.kind in BESIDE:
            put_beside(self.kind, model, sites, self, undo)
            return
        for parameter in model.parameters():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
        model.requires_grad_(False)
        if self.kind in BEFORE:
            put_before(self.kind, model, sites, self, undo)
        else:
            train_norms_and_biases(model, sites, undo)


ADAPTERS = {
    name: Method(name, label, partial(StudyAdapter, kind=name), size=size)
    for name, label, size in (
        ("repadapter", "RepAdapter before attention", "width {}"),
        ("repadapter_two", "RepAdapter in both places", "width {}"),
        ("lora_qkv", "LoRA on q, k and v", "rank {}"),
        ("lora_tied", "LoRA with one A", "rank {}"),
        ("serial_untied", "Serial LoRA with three pairs", "rank {}"),
        ("serial_ffn", "Serial LoRA before the feed-forward", "rank {}"),
        ("serial_rotated", "Serial LoRA with W rotated", "rank {}"),
        ("serial_random", "Serial LoRA with W random", "rank {}"),
        ("ln_bias", "LayerNorm and biases", ""),
    )
}


def _no_adapter(**_: object) -> AdapterConfig:
    raise SerialLoRAError("The runs of this method are finished and kept; it is not run again.")


FINISHED = {
    name: Method(name, label, _no_adapter, size=size)
    for name, label, size in (
        ("dora", "DoRA", "rank {}"),
        ("vera", "VeRA", "rank {}"),
        ("hra", "HRA", "{} reflections"),
        ("oft", "OFT", "blocks of {}"),
        ("miss", "MiSS", "rank {}"),
        ("fourierft", "FourierFT", "{:,} frequencies"),
        ("randlora", "RandLoRA", "bases of rank {}"),
        ("tip_adapter_f", "Tip-Adapter-F", ""),
        ("lp_plus_plus", "LP++'s classifier", ""),
        ("prolip", "ProLIP", ""),
    )
}
"""PEFT's own code on q, k, v and out, and three heads on CLIP's cached features."""


def get_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        SerialLoRAError: there is none.
    """
    known = METHODS | ADAPTERS | FINISHED
    require_choice("method in the study", name, known)
    return known[name]
