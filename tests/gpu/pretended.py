"""A GPU that is not there: devices, types and memory of what a GPU would be given, and no numbers.

    with pretended_gpu() as gpu:
        model = build().to(DEVICE)
        gpu.begin()
        model(batch.to(DEVICE)).backward()  # autocast and optimizers work as on a GPU
    gpu.taken.peak

What a GPU would refuse is a `Refused`. Tensors hold no data (PyTorch's FakeTensorMode). The device is
PyTorch's own dummy backend, since a tensor that claims to be on CUDA has no backward pass without a
driver; once registered it stays for the life of a process. It does not know the workspaces of cuDNN and
cuBLAS, what the allocator cannot use, the driver's context, any number, and any time.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

KIND = "pretended"
DEVICE = f"{KIND}:0"
aten = torch.ops.aten


class Refused(RuntimeError):
    """A GPU would not compute this."""


# ----------------------------------------------------------------------- the device, and autocast


@cache
def _register() -> list[torch.library.Library]:
    """The device, and a rule for each operation that CUDA's autocast knows; what is returned keeps them."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

        def get_rng_state(self, *device: object) -> Tensor:
            return torch.get_rng_state()

        def set_rng_state(self, *state: object) -> None: ...

    backend_registration._setup_privateuseone_for_python_backend(KIND, backend_module=Backend())
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel)
    rules = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for name in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
        library, _, own = name.partition("::")
        if library == "aten":
            base, _, overload = own.partition(".")
            operation = getattr(getattr(aten, base), overload or "default")
            rules.impl(name, partial(_in_its_type, operation, base))
    return [others, rules]


#: What autocast runs in its own type, and what in the widest type that it gets (PyTorch's manual, "CUDA
#: Op-Specific Behavior"); whatever else it has a rule for runs in float32.
NARROW = "prelu einsum matmul mm mv bmm addmm addmv addr addbmm baddbmm linear chain_matmul".split()
NARROW += ["linalg_multi_dot", "linalg_vecdot"]
WIDEST = "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot".split()
WIDEST += ["scatter_add"]


def _in_its_type(operation, base: str, *args, **kwargs):
    """An operation as autocast calls it."""
    given = [t for t in tree_leaves((args, kwargs)) if _may_be_cast(t)]
    narrow = base in WIDEST and all(t.dtype != torch.float32 for t in given)
    narrow = narrow or base in NARROW or "conv" in base or "_cell" in base
    dtype = torch.get_autocast_dtype(KIND) if narrow else torch.float32
    args, kwargs = tree_map(partial(_cast, dtype=dtype), (args, kwargs))
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return operation(*args, **kwargs)


def _cast(value: object, dtype: torch.dtype) -> object:
    return value.to(dtype) if _may_be_cast(value) else value


def _may_be_cast(value: object) -> bool:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return floating and value.device.type == KIND and value.dtype != torch.float64


_ON_CPU = nn.functional.scaled_dot_product_attention


def _attend(query, key, value, attn_mask=None, *settings, **more):
    """`F.scaled_dot_product_attention` by a GPU's own kernel, which never holds the (L, L) scores."""
    given = [query, key, value, attn_mask]
    if query.device.type != KIND:
        return _ON_CPU(*given, *settings, **more)
    if torch.is_autocast_enabled(KIND):
        given = [_cast(each, torch.get_autocast_dtype(KIND)) for each in given]
    return aten._scaled_dot_product_efficient_attention(*given, compute_log_sumexp=True)[0]


# --------------------------------------------------------------------------------- what is watched

#: Kernels that take numbers of one type; as to shapes several would do.
ONE_TYPE = "mm addmm bmm baddbmm convolution convolution_backward native_layer_norm".split()
ONE_TYPE += ["native_group_norm", "_scaled_dot_product_efficient_attention"]
COPIES = (aten._to_copy.default, aten.copy_.default)


@dataclass
class Taken:
    """What was taken since `PretendedGPU.begin`.

    Attributes:
        before, peak: bytes on the device, at the beginning and at most.
        kept: bytes that a forward pass has left for the way back.
        silent: tensors of the optimizer without a gradient.
    """

    before: int
    peak: int
    kept: int = 0
    silent: int = 0


class PretendedGPU(TorchDispatchMode):
    """Watches all that is computed inside of it.

    Attributes:
        whole: answers whoever reads a whole number.
        live: bytes on the device.
    """

    def __init__(self, whole: int) -> None:
        super().__init__()
        self.whole, self.live, self._there = whole, 0, {}
        self.begin()

    def begin(self) -> None:
        self.taken = Taken(self.live, self.live)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, given = kwargs or {}, _tensors((args, kwargs))
        self._check(func, given)
        if func in COPIES:
            for tensor in given:
                tensor.constant = None  # a single number's value, which no device would take
        result = self._answer(func, given)
        if result is None:
            result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._count(tensor)
        return result

    def _check(self, func, given: list[Tensor]) -> None:
        """Whether all is on one device, and of one type where it must be."""
        name, kinds = func._schema.name.removeprefix("aten::"), _kinds(t for t in given if t.dim())
        copied = func is aten.index.Tensor and given[0].device.type == KIND  # positions, to the GPU
        if len(kinds) > 1 and not copied and func not in COPIES:
            raise Refused(f"{name} of tensors on {' and '.join(sorted(kinds))}")
        dtypes = {str(t.dtype) for t in given if t.is_floating_point()}
        if len(dtypes) > 1 and KIND in kinds and name in ONE_TYPE:
            raise Refused(f"{name} of {' and '.join(sorted(dtypes))}")

    def _answer(self, func, given: list[Tensor]) -> object:
        """What is read of tensors that hold nothing: 1.0, True, and for whole numbers ``whole``."""
        if func is aten._local_scalar_dense.default:
            answer = given[0].dtype == torch.bool or self.whole
            return 1.0 if given[0].is_floating_point() else answer
        if func is aten.equal.default:
            return True
        if func is aten.nonzero.default:
            return given[0].new_empty(1, given[0].dim(), dtype=torch.long)
        if func is aten.repeat_interleave.Tensor:
            return given[0].new_empty(self.whole * len(given[0]))
        return None

    def _count(self, tensor: Tensor) -> None:
        """Its storage, until nothing refers to that any more."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if tensor.device.type != KIND or key in self._there:
            return

        def gone(_: object) -> None:
            self.live -= size
            del self._there[key]

        self._there[key] = weakref.ref(storage, gone)
        self.live += size
        self.taken.peak = max(self.taken.peak, self.live)


def _tensors(values: object) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _kinds(tensors: Iterable[Tensor]) -> set[str]:
    return {tensor.device.type for tensor in tensors}


# ------------------------------------------------------------------------------------ to be entered


def _apply(module: nn.Module, fn, recurse: bool = True) -> nn.Module:
    """`nn.Module._apply`; a parameter without data takes no other's, so it is replaced."""
    for child in module.children():
        child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            if not hasattr(parameter, "moved"):  # one that two modules share stays one
                parameter.moved = nn.Parameter(fn(parameter.detach()), parameter.requires_grad)
            module._parameters[name] = parameter.moved
    module._buffers |= {n: fn(b) for n, b in module._buffers.items() if b is not None}
    return module


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


@contextmanager
def pretended_gpu(whole: int = 0) -> Iterator[PretendedGPU]:
    """Pretend for the length of the block."""
    _register()
    gpu = PretendedGPU(whole)
    attend = patch.object(nn.functional, "scaled_dot_product_attention", _attend)
    with attend, patch.object(nn.Module, "_apply", _apply), patch.object(Tensor, "numpy", _numpy):
        with FakeTensorMode(allow_non_fake_inputs=True), gpu:
            yield gpu
