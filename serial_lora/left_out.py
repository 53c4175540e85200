"""What inject leaves out, and yet looks as if it were meant to be adapted, or to stay as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from torch import nn

from serial_lora.attention import every_site, find_sites
from serial_lora.feed_forward import blocks_without
from serial_lora.sites import Site
from serial_lora.state import Injection
from serial_lora.structure import attends, left_alone, tower_of


def not_adapted(root: nn.Module, injection: Injection) -> Iterator[str]:
    """Sentences about what is not adapted, or goes on changing, for who did not mean that."""
    config, modules = injection.config, dict(root.named_modules())
    attention = every_site(root, ("attention",))
    missed = without_sites(root, attention, config.towers)
    if missed and config.blocks is None:
        yield (
            f"no adapter went into {_first(missed)}: attention of a kind that is not "
            "known, or none; name the towers that you mean, or register_family for this kind."
        )
    if "feed_forward" in config.places:
        chosen = find_sites(root, *config.where[:3])
        missed = blocks_without(root, chosen + every_site(root, ("feed_forward",)))
        if missed:
            yield f"no adapter went into a feed-forward of {_first(missed)}: none is known there."
    learning = {module for head in injection.also_train.values() for module in head.modules()}
    drifting = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module not in learning
    ]
    if drifting:
        yield (
            f"the running statistics of {_first(drifting)} change in train(), and an adapter's file does "
            "not hold them; keep these in eval() while adapters learn, or name them in also_train."
        )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def without_sites(
    model: nn.Module, sites: Collection[Site], towers: Collection[str] | None
) -> list[str]:
    """What one would expect an adapter in and finds no site: "visual (ModifiedResNet)".

    That is a tower or decoder none of whose parts has a site, and attention of a kind that is not
    known beside some that is. Attention to tokens from elsewhere is left alone on purpose.
    """
    modules = dict(model.named_modules())
    inside = [p.module for site in sites for p in site.projections.values()]
    reached = {name.rsplit(".", up)[0] for name in inside for up in range(name.count(".") + 1)}
    left = {name: module for name, module in modules.items() if name not in reached}
    missed = [] if towers else [name for name, module in left.items() if _is_tower(name, module)]
    for name, module in left.items():
        below = any(name.startswith(f"{tower}.") for tower in missed)
        asked = towers is None or tower_of(modules, name) in towers
        parent = modules[name.rpartition(".")[0]]
        if asked and not below and attends(name, module) and not left_alone(name, module, parent):
            missed.append(name)
    return [f"{name} ({type(modules[name]).__name__})" for name in missed]


def _is_tower(name: str, module: nn.Module) -> bool:
    """A child of the model that is named as a tower or decoder and has several layers."""
    words = f"{name} {type(module).__name__}".lower() if name and "." not in name else ""
    layers = [m for m in module.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    named = re.search("visual|vision|image|text|language|decoder", words)
    apart = re.search("embed|projection|neck|mask", words)
    return bool(named and not apart) and len(layers) > 3
