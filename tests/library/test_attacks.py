"""What was done to adapted models to break them, by kind: right, or one sentence and no change."""

from __future__ import annotations

import copy
import pickle
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

from serial_lora import (
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    adapters,
    disabled,
    eject,
    inject,
    lora_plus_groups,
    merge,
    save_adapter,
    set_scale,
    to_peft,
    unmerge,
)
from serial_lora.adapted import Adapted
from tests.library.tiny_models import (
    RANK,
    TINY,
    PlainAttention,
    PlainBlock,
    adapted,
    fill_adapters,
    write_dense,
)

CLOSE = dict(rtol=1e-4, atol=2e-5)


def snapshot(model: nn.Module) -> dict:
    """All that a refusal must leave as it is."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "trainable": {name: p.requires_grad for name, p in model.named_parameters()},
        "classes": [type(module) for module in model.modules()],
        "hooks": [
            (list(m._forward_hooks), list(m._forward_pre_hooks), sorted(vars(m)))
            for m in model.modules()
        ],
    }


def assert_unchanged(model: nn.Module, before: dict) -> None:
    after = snapshot(model)
    tensors, now = before.pop("tensors"), after.pop("tensors")
    assert before == after and tensors.keys() == now.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor.cpu().float(), now[name].cpu().float()), name


def refused(model: nn.Module, act, noun: str) -> None:
    before = snapshot(model)
    with pytest.raises(SerialLoRAError, match=noun) as caught:
        act(model)
    assert len(str(caught.value).splitlines()) == 1
    assert_unchanged(model, before)


# ----------------------------------------------------------------- merge is right, or refused

WEIGHTS = {  # what is done to one q layer before the adapters come, and how it is undone
    "weight_norm": (parametrizations.weight_norm, parametrize.remove_parametrizations),
    "hooked spectral_norm": (spectral_norm, nn.utils.remove_spectral_norm),
    "pruning": (lambda layer: prune.random_unstructured(layer, "weight", 0.5), prune.remove),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_a_weight_that_is_computed_is_adapted_once_it_is_an_ordinary_one(kind, method):
    tiny, (do, undo) = TINY["plain"], WEIGHTS[kind]
    model = tiny.build()
    with torch.enable_grad():
        do(model[1].attention.q)
    model.eval()
    tiny.run(model)
    refused(model, lambda m: inject(m, method(rank=RANK)), "1.attention.q.weight is computed")
    undo(model[1].attention.q, "weight")
    expected = tiny.run(fill_adapters(inject(model, method(rank=RANK))))
    torch.testing.assert_close(tiny.run(merge(model)), expected, **CLOSE)


AROUND = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "a default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ["timm", "plain", "open_clip_own_attention"])
def test_what_surrounds_a_call_does_not_matter(name, around, method):
    """inject, merge, unmerge, export and eject inside it: what they give outside, bit for bit."""

    def states(surroundings):
        torch.manual_seed(5)
        model = TINY[name].build()
        with surroundings():
            inject(model, method(rank=RANK))
        fill_adapters(model)
        yield model.state_dict()
        with surroundings():
            merge(model)
        yield model.state_dict()
        with surroundings():
            unmerge(model)
            exported = to_peft(model) if name == "plain" else {}
        yield exported
        TINY[name].run(model).square().mean().backward()
        assert all(pair.lora_A.grad is not None for pair in adapters(model).values())
        with surroundings():
            eject(model, keep_merged=True)
        yield model.state_dict()

    for inside, outside in zip(states(AROUND[around]), states(nullcontext), strict=True):
        assert inside.keys() == outside.keys()
        assert all(torch.equal(tensor, outside[key]) for key, tensor in inside.items())


REBUILT = {
    "removed": lambda model: model.__delitem__(1),
    "inserted": lambda model: model.insert(0, PlainBlock()),
    "replaced": lambda model: setattr(model[1].attention, "q", nn.Linear(32, 32)),
    "without a pair": lambda model: model[0]._modules.popitem(),
}


@torch.no_grad()
@pytest.mark.parametrize("rebuild", REBUILT)
def test_a_model_that_was_rebuilt_is_not_touched(rebuild, method, tmp_path):
    model = adapted(TINY["plain"], method)
    REBUILT[rebuild](model)
    save = tmp_path / "a.safetensors"
    acts = [merge, unmerge, eject, to_peft, lambda m: save_adapter(m, save)]
    for act in [*acts, lambda m: set_scale(m, 2), lambda m: disabled(m).__enter__()]:
        refused(model, act, "modules were added, removed or replaced")
    refused(model, lambda m: inject(m, method(rank=RANK)), "adapters already")
    assert not save.exists()


def test_a_part_of_an_adapted_model_is_not_taken_for_the_whole(tmp_path):
    model = adapted(TINY["open_clip"], SerialLoRAConfig)
    acts = [merge, unmerge, eject, to_peft, lambda m: save_adapter(m, tmp_path / "a")]
    for act in [*acts, lambda m: inject(m, SerialLoRAConfig(rank=2))]:
        refused(model, lambda m, act=act: act(m.visual), "larger model|adapters already")


@pytest.mark.parametrize("tie", [lambda weight: weight, lambda weight: nn.Parameter(weight.data)])
@pytest.mark.parametrize("blocks", [None, [1]])
def test_a_weight_that_another_layer_reads_is_not_merged_into(tie, blocks, method):
    """One parameter in two layers, or two parameters over one memory; adapted in both, or in one."""
    model = TINY["timm"].build()
    model.blocks[1].attn.qkv.weight = tie(model.blocks[0].attn.qkv.weight)
    inject(model, method(rank=2, blocks=blocks))
    for act in (merge, to_peft):
        refused(fill_adapters(model), act, "shares? a weight")
    eject(model)


@torch.no_grad()
def test_one_layer_for_two_projections_merges_exactly(method):
    model = TINY["plain"].build()
    model[0].attention.k = model[0].attention.q
    expected = TINY["plain"].run(fill_adapters(inject(model, method(rank=2))))
    torch.testing.assert_close(TINY["plain"].run(merge(model)), expected, **CLOSE)


# ------------------------------------------------------------------ never left half injected


@pytest.mark.parametrize("name", ["plain", "encoder_post_norm", "open_clip_own_attention"])
def test_an_error_halfway_leaves_no_trace(name, method, monkeypatch):
    model = TINY[name].build()
    next(model.parameters()).requires_grad_(False)
    before, calls, put_on = snapshot(model), [], Adapted.put_on

    def fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        put_on(*args, **kwargs)

    monkeypatch.setattr(Adapted, "put_on", fails)
    with pytest.raises(MemoryError):
        inject(model, method(rank=RANK))
    monkeypatch.undo()
    assert_unchanged(model, before)


# ------------------------------------------------------------------ inside a block, and while merged


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_no_copy_is_made_inside_a_block(copied):
    model = adapted(TINY["timm"], SerialLoRAConfig)
    with disabled(model):
        for act in (copied, lambda m: lora_plus_groups(m, lr=1e-3)):
            refused(model, act, "leave that `with` block")
    assert copied(model)


def test_adapters_that_would_not_learn_are_not_handed_to_an_optimizer():
    model = adapted(TINY["timm"], SerialLoRAConfig)
    for act in (lambda m: lora_plus_groups(m, lr=1e-3), lambda m: set_scale(m, 2.0)):
        refused(merge(model), act, "merged")
    assert lora_plus_groups(unmerge(model), lr=1e-3)


# ------------------------------------------------- adapters act where they were asked for, or say so


def recorded(layer, seen):
    """The usual recorder: a forward of the instance around the old one."""
    forward = layer.forward

    def record(*args, **kwargs):
        seen.append(1)
        return forward(*args, **kwargs)

    layer.forward = record


@torch.no_grad()
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["open_clip", "open_clip_own_attention", "timm", "plain"])
def test_a_forward_of_the_users_own(name, when, method):
    """It goes on being called, the adapter acts as in dense weights, and both can be taken out."""
    tiny, seen = TINY[name], []
    model = tiny.build()
    base = tiny.run(model)
    block = {"timm": lambda m: m.blocks[0].attn, "plain": lambda m: m[0].attention}.get(
        name, lambda m: m.visual.transformer.resblocks[0].attn
    )
    if when == "before":
        recorded(block(model), seen)
    fill_adapters(inject(model, method(rank=RANK)))
    if when == "after":
        recorded(block(model), seen)
    expected = tiny.run(write_dense(tiny, tiny.build(), model, 1.0))
    for act in (lambda m: m, merge, unmerge):
        seen.clear()
        torch.testing.assert_close(tiny.run(act(model)), expected, **CLOSE)
        assert seen
    eject(model)
    seen.clear()
    torch.testing.assert_close(tiny.run(model), base, **CLOSE)
    assert seen


@torch.no_grad()
@pytest.mark.parametrize("name", ["open_clip", "open_clip_own_attention", "timm", "plain"])
def test_a_forward_that_is_the_class_own_is_adapted_too(name, method):
    """Somebody puts back what the class does, which reads weights, past all that `inject` did."""
    tiny = TINY[name]
    model = adapted(tiny, method)
    expected = tiny.run(write_dense(tiny, tiny.build(), model, 1.0))
    for module in model.modules():
        kind = {"NonDynamicallyQuantizableLinear": nn.Linear}.get(type(module).__name__)
        for other in (nn.MultiheadAttention, nn.Linear):
            kind = other if isinstance(module, other) else kind
        if kind is not None:
            module.forward = lambda *a, _f=kind.forward, _s=module, **k: _f(_s, *a, **k)
    torch.testing.assert_close(tiny.run(model), expected, **CLOSE)
    with disabled(model):
        torch.testing.assert_close(tiny.run(model), tiny.run(tiny.build()), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_blocks_that_are_compiled_one_by_one(in_place, first, method):
    """Wrapped or in place, before or after the adapters came."""
    tiny = TINY["plain"]
    model, reference = tiny.build(), adapted(TINY["plain"], method)
    expected = tiny.run(write_dense(tiny, tiny.build(), reference, 1.0))

    def compile_blocks():
        for i, block in enumerate(model):
            if in_place:
                block.compile(backend="eager")
            else:
                model[i] = torch.compile(block, backend="eager")
        tiny.run(model)

    if first:
        compile_blocks()
    inject(model, method(rank=RANK))
    if not first:
        compile_blocks()
    for own, value in zip(adapter_parameters(model), adapter_parameters(reference), strict=True):
        own.copy_(value)
    for act in (lambda m: m, merge, unmerge):
        torch.testing.assert_close(tiny.run(act(model)), expected, **CLOSE)
    eject(model)
    torch.testing.assert_close(tiny.run(model), tiny.run(tiny.build()), **CLOSE)
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())


# ------------------------------------------------------------- what has no adapter, beside what has


def resnet_and_text() -> nn.Module:
    from open_clip.modified_resnet import ModifiedResNet

    model = TINY["open_clip"].build()
    model.visual = ModifiedResNet([1, 1, 1, 1], 32, 4, image_size=32, width=8)
    return model


def without_values() -> nn.Module:
    """Two blocks whose attention has queries and keys alone."""
    model = nn.Sequential(PlainBlock(), PlainBlock(), PlainBlock())
    for block in model[:2]:
        del block.attention.v
    return model


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (resnet_and_text, r"visual \(ModifiedResNet\)"),
        (without_values, r"0.attention \(PlainAttention\), 1.attention \(PlainAttention\)"),
    ],
)
def test_what_inject_passes_over_is_named(build, named, method):
    with pytest.warns(UserWarning, match=named):
        model = inject(build(), method(rank=2))
    assert adapters(model)
    chosen = {"towers": ["text"]} if hasattr(model, "visual") else {"blocks": [2]}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "no adapter went into")
        inject(build(), method(rank=2, **chosen))  # asked for by name: nothing to say


class KeywordAttention(PlainAttention):
    def forward(self, x):
        return self.out(self.q(input=x) * self.k(input=x) + self.v(input=x))


def test_layers_called_by_keyword(method):
    model, tokens = nn.Sequential(KeywordAttention()), torch.randn(2, 5, 32)
    base = model(tokens)
    seen = fill_adapters(inject(model, method(rank=RANK)))(tokens)
    assert not torch.allclose(seen, base, **CLOSE)
    torch.testing.assert_close(merge(model)(tokens), seen, **CLOSE)


class Around(nn.Module):
    """A block that can do without its attention, or read its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.past = PlainAttention(), False

    def forward(self, x):
        if self.past:
            return x + nn.functional.linear(x, self.attention.v.weight)
        return x + self.attention(x)


@torch.no_grad()
def test_a_block_that_goes_past_its_attention_reads_the_adapted_weight(method):
    model = nn.Sequential(Around(), Around())
    model[1].past = True
    base, x = copy.deepcopy(model), torch.randn(2, 5, 32)
    fill_adapters(inject(model, method(rank=2)))
    seen = model(x)
    assert not torch.allclose(seen, base(x), **CLOSE)
    torch.testing.assert_close(merge(model)(x), seen, **CLOSE)


@pytest.mark.parametrize(
    "name", ["r", "lora_alpha", "target_modules", "use_rslora", "bias", "layers_to_transform"]
)
def test_other_libraries_names_of_settings_are_told(method, name):
    with pytest.raises(SerialLoRAError, match=f"{name} is .* here"):
        method(rank=4, **{name: None})
    with pytest.raises(SerialLoRAError, match="no ranks here.*rank, scale"):
        method(ranks=4)
