"""What stands in for a model's adapters during a `with` block: nothing, or a pair for each sample."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from serial_lora.config import SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, require_names
from serial_lora.hooks import BLOCKS, Block
from serial_lora.layers import low_rank
from serial_lora.merging import copies, exactly, put_merged, put_original
from serial_lora.named import read_pairs
from serial_lora.records import (
    Injection,
    adapter_shapes,
    adapters,
    injections,
    only_injection,
)
from serial_lora.sites import child_name, unwrapped_name

_LOCK = threading.RLock()


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model, for the length of a `with` block.

    Merged adapters are taken out as well, and modules that learn beside the adapters have the
    base's own values. Blocks may be nested, and an exception ends them like anything else. Other
    threads and asyncio tasks go on with the adapters; code that torch.compile made is without them in
    every thread. A model is not copied or saved whole inside.

    Raises:
        SerialLoRAError: if there are no adapters, or the model was rebuilt since; at the end, if a
            block inside is still open, which ends with this one.
    """
    with ExitStack() as stack:
        for root, injection in injections(model):
            nothing = dict.fromkeys(adapters(root).values())
            stack.enter_context(_standing_in(root, injection, nothing))
        yield model


@contextmanager
def per_sample(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Another adapter for each sample of a batch, in one forward pass, for the length of a block.

    Each sample's pair is gathered and multiplied with its own tokens, so the outputs are those of
    separate passes, however many adapters there are. For inference: the adapters get no gradients.

    Args:
        names: for each sample the name of its adapter, None for the base.

    Other threads and asyncio tasks may have blocks of their own at the same time, unless torch.compile
    has made code of the model, which has one for all.

    Raises:
        SerialLoRAError: there is no adapter of such a name; the model is in training mode, merged
            or disabled; or modules learn beside the adapters, which the batch has in common. A
            batch of another size is refused where it meets the first adapter. At the end as `disabled`.
    """
    root, injection = only_injection(model)
    names = require_names("the adapters of samples", names, or_none=True)
    if any(block.open and block.record is injection for block in BLOCKS.get()):
        injection.refuse_inside()
    if injection.merged or any(adapter.training for adapter in adapters(root).values()):
        raise SerialLoRAError(
            "adapters for each sample are for inference with unmerged adapters; call "
            "unmerge(model) and model.eval() first."
        )
    if injection.also_train:
        raise SerialLoRAError(
            f"the samples of a batch share {next(iter(injection.also_train))}, which learned "
            "beside the adapters; run the samples of each adapter separately."
        )
    with exactly(root):
        pairs = _gathered(root, injection, names)
    with _standing_in(root, injection, pairs):
        yield model


class SamplePairs:
    """In place of one adapter: as many pairs as there are names, and which one each sample has.

    Attributes:
        A, B: (names, r, inputs) and (names, outputs, r), scale within; smaller ranks are padded
            with zeros, which change nothing.
        index: (samples,), for each its place among the names.
        dimension: that of the samples in the tokens.
        windows: whether a sample may come as several windows of its tokens.
    """

    def __init__(
        self, adapter: nn.Module, pairs: list, index: Tensor, dimension: int, windows: bool
    ) -> None:
        self.kind, self.lora_A = type(adapter), adapter.lora_A
        rank = max(len(first) for first, _ in pairs)
        pad = nn.functional.pad
        self.A = torch.stack([pad(a, (0, 0, 0, rank - len(a))) for a, _ in pairs])
        self.B = torch.stack([pad(b, (0, rank - b.shape[1])) for _, b in pairs])
        self.index, self.dimension = index.to(self.A.device), dimension
        self.windows = windows

    def __call__(self, x: Tensor) -> Tensor:
        """As `SerialLoRA.forward` or `LoRA.forward`, with the change below."""
        return self.kind.forward(self, x)

    def delta(self, x: Tensor) -> Tensor:
        samples, tokens = len(self.index), x.movedim(self.dimension, 0)
        if (
            x.ndim < 2 + self.dimension
            or len(tokens) % samples
            or (len(tokens) != samples and (x.ndim < 3 or not self.windows))
        ):
            raise SerialLoRAError(
                f"per_sample was given {samples} names, but tokens of shape {tuple(x.shape)} came; "
                "give one name for each sample of the batch, and run each tower by itself."
            )
        rows = tokens.reshape(samples, -1, x.shape[-1])  # windows are in the order of samples
        change = low_rank(rows, self.A[self.index], self.B[self.index])
        return change.reshape(*tokens.shape[:-1], -1).movedim(0, self.dimension)


def _gathered(
    root: nn.Module, injection: Injection, names: list[str | None]
) -> dict[nn.Module, SamplePairs]:
    kinds = list(dict.fromkeys(names))
    if not kinds:
        raise SerialLoRAError("per_sample needs a name for each sample of the batch.")
    index = torch.tensor([kinds.index(name) for name in names])
    each = [read_pairs(injection, kind) for kind in kinds]
    there, stand_ins = injection.pairs, {}
    for site in injection.sites:
        layer = root.get_submodule(site.projections["q"].module)
        dimension = 0 if getattr(layer, "batch_first", True) else 1
        serial = injection.config.method == SerialLoRAConfig.method
        windows = site.stream is None and not (serial and site.entry)  # cut behind the entry
        for own in adapter_shapes(site, injection.config):
            place = unwrapped_name(child_name(site.name, own))
            pairs = [one[place] for one in each]
            stand_ins[there[place]] = SamplePairs(there[place], pairs, index, dimension, windows)
    return stand_ins


@contextmanager
def _standing_in(
    root: nn.Module, injection: Injection, acting: Mapping[nn.Module, Callable | None]
) -> Iterator[None]:
    """These in place of adapters: in this thread or task, and in compiled code of all threads."""
    block = Block(injection, acting)
    _open(root, injection, block)
    BLOCKS.set((*BLOCKS.get(), block))
    try:
        yield
    finally:
        here = [other for other in BLOCKS.get() if other.open and other.record is injection]
        within = here[here.index(block) + 1 :] if block in here else []
        for each in (*reversed(within), block):
            _close(root, injection, each)
        BLOCKS.set(tuple(other for other in BLOCKS.get() if other.open))
        if within:
            raise SerialLoRAError(
                "a `with` block of disabled or per_sample ended before one that was opened inside it, "
                "and both are over now; end the inner one first."
            )


def _open(root: nn.Module, injection: Injection, block: Block) -> None:
    with _LOCK:
        elsewhere = [other for other in injection.open if other not in BLOCKS.get()]
        mixed = elsewhere and not all(other.base for other in (*elsewhere, block))
        if mixed and any(hook.traced for hook in injection.hooks):
            raise SerialLoRAError(
                "torch.compile has made code of this model, which serves one per_sample block at a time; "
                "wait for that of the other thread."
            )
        if block.base and injection.set_aside is None:  # the first, of any thread
            merged = copies(root, injection.originals or {})
            if merged:
                put_original(root, injection)
            with exactly(root):
                injection.exchange()
            injection.set_aside = merged
        injection.open.append(block)
        _tell_compiled(injection)


def _close(root: nn.Module, injection: Injection, block: Block) -> None:
    with _LOCK:
        if not block.open:
            return
        block.open = False
        injection.open.remove(block)
        _tell_compiled(injection)
        if injection.set_aside is not None and not any(other.base for other in injection.open):
            with exactly(root):
                injection.exchange()
            merged, injection.set_aside = injection.set_aside, None
            if merged:
                put_merged(root, injection, merged)


def _tell_compiled(injection: Injection) -> None:
    acting = injection.open[-1].acting if injection.open else {}
    for hook in injection.hooks:
        hook.compiled = tuple(acting.get(adapter, adapter) for adapter in hook.adapters)
