"""What a training step keeps in memory between its forward and its backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def saved_activations(model: nn.Module) -> Iterator[list[int]]:
    """Count the bytes that the block keeps for its backward pass; a list that holds them afterwards.

    Parameters and buffers are left out. Each storage counts once, whole, however many views of it
    are kept. Under autocast the frozen weights' bfloat16 copies are kept too, and are left out as
    weights are. The gradients are what they would be.

    Args:
        model: whose parameters and buffers do not count. Its ``checkpointed``, if it has that, are
            modules under gradient checkpointing. Of each only its inputs are kept, which autograd does
            not report; what it computes anew in the backward pass comes on top, for one at a time.
    """
    owned = {_storage_id(t) for t in [*model.parameters(), *model.buffers()]}
    # Held until they are summed: the address of one that is let go would soon be another's.
    kept: dict[int, torch.UntypedStorage] = {}
    total: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        if _storage_id(tensor) not in owned:
            kept[_storage_id(tensor)] = tensor.untyped_storage()
        # A tensor that knows its history, kept in that history, is a ring that nothing ever frees.
        return tensor.detach()

    def keep_inputs(module: nn.Module, inputs: tuple) -> None:
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                pack(tensor)

    checkpointed = getattr(model, "checkpointed", ())
    handles = [module.register_forward_pre_hook(keep_inputs) for module in checkpointed]
    try:
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, _CopiesOfWeights(owned):
            yield total
    finally:
        for handle in handles:
            handle.remove()
    total.append(sum(storage.nbytes() for storage in kept.values()))


class _CopiesOfWeights(TorchDispatchMode):
    """Counts a frozen weight's copy in another precision, which autocast makes, among the weights.

    A copy is told by what it was made of: an activation or a dropout mask may have its shape.
    """

    def __init__(self, owned: set[int]) -> None:
        super().__init__()
        self.owned, self.held = owned, []  # held for the same reason as what is kept

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            source = args[0]
            if not source.requires_grad and _storage_id(source) in self.owned:
                self.held.append(result)
                self.owned.add(_storage_id(result))
        return result


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # an address of data would be none for a fake tensor
