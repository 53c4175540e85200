"""Adapters into the weights and out of them again: merge, unmerge."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from serial_lora.config import LoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.hooks import attach, detach
from serial_lora.records import Injection, changed_parts, injections, refuse_without_values
from serial_lora.sites import AttentionSite, Projection, shared_weights
from serial_lora.stored import stored, writable

Key = tuple[str, str]
"""A weight's place: (module, parameter)."""

Weights = dict[Key, list[Tensor]]
"""What weights consist of (`Stored.parts`), by their places."""


def merge(model: nn.Module) -> nn.Module:
    """Fold the adapters into the base's weights: the same outputs at the base's speed.

    Serial LoRA turns each of W_q, W_k, W_v into W (I + scale * B A); LoRA turns each projection
    into W + scale * B A. Computed in float32 whatever the base's type, and rounded once. The
    original weights are kept, so that `unmerge` and `eject` bring back every bit. Merging a merged
    model does nothing. Weights in 8 or 4 bits are computed with as matrices and rounded to their
    bits again; a warning says what that costs.

    The state dict of a merged model holds the merged weights *and* the adapters: save one with
    `save_adapter`, or call `eject(model, keep_merged=True)` for a plain model to save whole. Load
    other weights before merging: `unmerge` brings back those that were there.

    Raises:
        SerialLoRAError: if there are no adapters or the model was rebuilt since, a weight is not
            an ordinary one (computed by weight_norm, pruning or the like, float8), a merged weight
            would not be finite, or it has sharers that are not adapted alike. The model is then as
            it was.
    """
    found = injections(model, to_change=True)
    with exactly(model):
        plans = [(r, i, _merged_weights(r, i)) for r, i in found if i.originals is None]
        for root, injection, merged in plans:
            put_merged(root, injection, merged)
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Take merged adapters out of the weights, bit for bit; does nothing if none are merged.

    Raises:
        SerialLoRAError: if there are no adapters, or the model was rebuilt since.
    """
    found = injections(model, to_change=True)
    for root, injection in found:
        if injection.originals is not None:
            put_original(root, injection)
    return model


@contextmanager
def exactly(model: nn.Module) -> Iterator[None]:
    """Whatever surrounds the call, computed as it stands: no autocast, inference or default device."""
    with ExitStack() as stack:
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in {parameter.device.type for parameter in model.parameters()} - {"meta"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def put_merged(root: nn.Module, injection: Injection, merged: Weights) -> None:
    """These weights into the model and its hooks off; on an error it is as it was."""
    with exactly(root):
        originals = copies(root, merged)
        try:
            _write(root, merged)
        except BaseException:
            _write(root, originals)
            raise
    detach(injection)
    injection.originals = originals


def put_original(root: nn.Module, injection: Injection) -> None:
    """The base's own weights into a merged model, and its hooks on."""
    with exactly(root):
        _write(root, injection.originals)
    injection.originals = None
    attach(root, injection)


def copies(root: nn.Module, keys: Collection[Key]) -> Weights:
    """What weights consist of now."""
    return {key: [part.clone() for part in writable(root, key).parts()] for key in keys}


def base_weight(root: nn.Module, injection: Injection, projection: Projection) -> Tensor:
    """The base's own rows for a projection, (rows, columns), even while adapters are merged."""
    kept = (injection.originals or {}).get((projection.module, projection.parameter))
    place = stored(root.get_submodule(projection.module), projection.parameter)
    return place.matrix(place.parts() if kept is None else kept)[projection.row_slice]


def change_factors(
    root: nn.Module,
    injection: Injection,
    site: AttentionSite,
    part: str,
    least: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """What an adapter adds to the weight of one projection, as the two factors of a product.

    LoRA's are s B_p and A_p, Serial LoRA's s W_p B and A (the paper's equations 4 and 5): (rows, rank)
    and (rank, columns), in `least` or the wider number type of what they are made from.
    """
    block = root.get_submodule(site.name)
    if injection.config.method == LoRAConfig.method:
        lora = block.get_submodule(f"lora_{part}{site.suffix}")
        return lora.scale * wide(lora.lora_B, least), wide(lora.lora_A, least)
    serial = block.get_submodule(f"serial_lora{site.suffix}")
    writable(root, (site.projections[part].module, site.projections[part].parameter))  # or refuse
    weight = wide(base_weight(root, injection, site.projections[part]), least)
    left = serial.scale * (weight @ serial.lora_B.to(weight.dtype))
    return left, serial.lora_A.to(weight.dtype)


def wide(tensor: Tensor, least: torch.dtype = torch.float32) -> Tensor:
    """The tensor in at least this number type, or in its own if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, least))


def _merged_weights(root: nn.Module, injection: Injection) -> Weights:
    refuse_without_values(root)
    if shared_weights(root, injection.sites):
        raise SerialLoRAError(
            "blocks of this model share their attention weights but have an adapter each, so there "
            "is no one weight to merge into; use the adapters unmerged."
        )
    readers: dict[Key, list[tuple[AttentionSite, str]]] = {}
    for site in injection.sites:
        for part, projection in changed_parts(site, injection.config).items():
            readers.setdefault((projection.module, projection.parameter), []).append((site, part))
    _refuse_other_readers(root, readers)
    merged, sizes = {}, []
    for key, parts in readers.items():
        place = writable(root, key)
        before = place.matrix(place.parts())
        exact = before.clone()
        for site, part in parts:
            rows = exact[site.projections[part].row_slice]
            left, right = change_factors(root, injection, site, part)
            rows.copy_(wide(rows) + left @ right)
        merged[key] = place.rounded(exact)
        after = place.matrix(merged[key])
        if not after.isfinite().all():
            raise SerialLoRAError(
                f"merging would put values that are not finite into {key[0]}; the adapter has "
                "diverged, or the base's number type is too narrow: nothing was merged."
            )
        if place.quantized:
            sizes.append([t.norm() for t in (before, exact - before, after - exact)])
    if sizes:
        whole, change, loss = torch.tensor(sizes).norm(dim=0).tolist()
        warnings.warn(
            f"the adapter changes the quantized weights by {change / whole:.2%} of their size, and "
            f"rounding them to their bits again by {loss / whole:.2%}; to merge exactly, load the "
            "adapter onto the base in bfloat16 or float32.",
            stacklevel=3,
        )
    return merged


def _refuse_other_readers(root: nn.Module, merged: Collection[Key]) -> None:
    """Refuse to change a weight that a layer without this adapter reads too."""
    places = {_memory(writable(root, key).weight): root.get_submodule(key[0]) for key in merged}
    for name, module in root.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None and places.get(_memory(parameter), module) is not module:
                raise SerialLoRAError(
                    f"{name} has a weight in common with an adapted layer and is not adapted, so "
                    "merging would change it too; use the adapters unmerged."
                )


def _memory(parameter: nn.Parameter) -> int:
    """What two parameters have in common that are changed together, whatever their names."""
    plain = type(parameter.data) is Tensor and parameter.numel()
    return parameter.data_ptr() if plain else id(parameter)


@torch.no_grad()
def _write(root: nn.Module, weights: Weights) -> None:
    places = {key: writable(root, key).parts() for key in weights}  # all, before the first write
    for key, values in weights.items():
        for place, value in zip(places[key], values, strict=True):
            place.copy_(value)
