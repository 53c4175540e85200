"""Modules that learn beside the adapters, and heads that one may have forgotten to train."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from torch import nn

from serial_lora.errors import SerialLoRAError, require_names
from serial_lora.sites import AttentionSite
from serial_lora.stored import is_quantized, stored


def also_trained(
    root: nn.Module, sites: Collection[AttentionSite], names: Collection[str]
) -> dict[str, nn.Module]:
    """The modules of these names.

    Raises:
        SerialLoRAError: there is no such module, it has nothing to learn, or attention that gets
            an adapter is inside it.
    """
    modules = dict(root.named_modules())
    names = [names] if isinstance(names, str) else names
    names = list(dict.fromkeys(require_names("modules to train beside the adapters", names)))
    for name in names:
        if not name or name not in modules:
            last = [other for other in modules if "." not in other and other]
            raise SerialLoRAError(
                f"there is no module {name!r} to train beside the adapters; the model's own are: "
                f"{', '.join(last)}."
            )
        if not any(p.is_floating_point() for p in modules[name].parameters()):
            raise SerialLoRAError(f"{name} has no parameter that could be trained; leave it out.")
        if is_quantized(modules[name]):
            raise SerialLoRAError(
                f"{name} is quantized, and numbers of 8 or 4 bits cannot be trained; keep it out of "
                "the quantization."
            )
        adapted = [p.module for site in sites for p in site.projections.values()]
        inside = [other for other in adapted if f"{other}.".startswith(f"{name}.")]
        if inside:
            raise SerialLoRAError(
                f"{name} holds {inside[0]}, which is adapted, so it cannot be trained beside the "
                "adapters; name what is outside of attention."
            )
    return {name: modules[name] for name in names}


def fresh_heads(
    root: nn.Module, sites: Collection[AttentionSite], also: Collection[str]
) -> Iterator[str]:
    """Linear heads that look untrained in a model that does not, and are not to be trained."""
    modules = dict(root.named_modules())
    norms = {
        n: m for n, m in modules.items() if isinstance(m, nn.LayerNorm) and m.weight is not None
    }
    if not any((norm.weight != 1).any() for norm in norms.values() if not norm.weight.is_meta):
        return  # all of it is fresh
    reached = {site.name.partition(".")[0] for site in sites}
    away = {name.partition(".")[0] for name in norms if "." in name} - reached  # other towers
    skipped = [*(site.name for site in sites), *away, *also]
    for name, module in modules.items():
        named = re.search("head|classif|score|(^|[._])fc|logits|predict", name)
        known = any(f"{name}.".startswith(f"{other}.") for other in skipped)
        if named and not known and isinstance(module, nn.Linear) and _looks_fresh(module):
            yield name


def _looks_fresh(layer: nn.Linear) -> bool:
    """Whether its bias is zero, or its weight is spread as PyTorch draws one: evenly up to a bound."""
    if layer.weight.is_meta or not layer.weight.numel():
        return False
    place, bound = stored(layer, "weight"), layer.in_features**-0.5
    weight = place.matrix(place.parts()).float()
    evenly = weight.abs().max() <= bound and abs(weight.std() / bound * 3**0.5 - 1) < 0.05
    zeros = layer.bias is not None and not layer.bias.any()
    return bool(evenly or zeros)
