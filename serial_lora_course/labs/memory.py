"""What a training step keeps in memory between its forward and its backward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from serial_lora_course.labs.precision import autocast, settle_precision
from serial_lora_course.labs.training import ExampleStream, TrainingConfig


def activation_bytes(objective: nn.Module, stream: ExampleStream, config: TrainingConfig) -> int:
    """Bytes that the first batch of a run keeps between its forward and its backward pass.

    A batch is what one process computes at once, the whole of it or the part that accumulation and
    other processes leave. With gradient checkpointing, what one block computes anew comes on top.

    Args:
        objective: what :func:`serial_lora_course.labs.training.train` takes; its ``checkpointed``,
            if it has that, are the blocks under gradient checkpointing.
    """
    device = next(objective.parameters()).device
    objective.to(device)  # with the buffers of its own
    batch = send_to_device(stream.first_part(config), device)
    few_examples = partial(stream.first_examples, config)
    precision = settle_precision(config.precision, objective, few_examples)

    def forward() -> None:
        with autocast(device, precision):
            objective(batch)

    objective.train()  # dropout keeps its masks
    try:
        return saved_activation_bytes(forward, objective, getattr(objective, "checkpointed", ()))
    finally:
        objective.eval()


def saved_activation_bytes(
    step: Callable[[], object], model: nn.Module, checkpointed: Iterable[nn.Module] = ()
) -> int:
    """Bytes that are kept for the backward pass, parameters and buffers left out.

    Each storage counts once, whole, however many views of it are kept. Under autocast the frozen
    weights' bfloat16 copies are kept too; they have a weight's shape and no history, and are left
    out as weights are.

    Args:
        step: runs the forward pass (and the backward pass, if it likes). Under torch's
            FakeTensorMode it computes nothing, and the count is the same.
        model: whose parameters and buffers do not count.
        checkpointed: modules under gradient checkpointing. Of each only its inputs are kept, which
            autograd does not report; what it computes anew in the backward pass comes on top,
            for one module at a time.
    """
    owned = {_storage_id(t) for t in [*model.parameters(), *model.buffers()]}
    weight_shapes = {tuple(p.shape) for p in model.parameters() if p.ndim > 1}
    weight_shapes |= {shape[::-1] for shape in weight_shapes}
    # Held until they are summed: the address of one that is let go would soon be another's.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        cast_weight = (
            tensor.dtype != torch.float32
            and not tensor.requires_grad
            and tuple(tensor.shape) in weight_shapes
        )
        if _storage_id(tensor) not in owned and not cast_weight:
            kept[_storage_id(tensor)] = tensor.untyped_storage()
        # A tensor that knows its history, kept in that history, is a ring that nothing ever frees.
        return tensor.detach()

    def keep_inputs(module: nn.Module, inputs: tuple) -> None:
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                pack(tensor)

    handles = [module.register_forward_pre_hook(keep_inputs) for module in checkpointed]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step()
    finally:
        for handle in handles:
            handle.remove()
    return sum(storage.nbytes() for storage in kept.values())


def without_values(model: nn.Module) -> nn.Module:
    """A copy of a model that takes no memory: every tensor has a shape and no values."""
    known = {id(p): _shape_of(p) for p in model.parameters()}
    return copy.deepcopy(model, known | {id(b): _shape_of(b) for b in model.buffers()})


def _shape_of(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def give_shapes(model: nn.Module) -> None:
    """Give every tensor of a model without values a device; under FakeTensorMode still no values.

    On the meta device itself attention would be counted as it runs nowhere, with all its scores.
    """
    for module in model.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=tensor.requires_grad))
        for name, tensor in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(tensor.shape, dtype=tensor.dtype))


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # an address of data would be none for a fake tensor
