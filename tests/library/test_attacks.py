"""What was done to adapted models to break them, by kind: right, or one sentence and no change."""

from __future__ import annotations

import copy
import pickle
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    adapters,
    disabled,
    eject,
    inject,
    lora_plus_groups,
    merge,
    merging,
    per_sample,
    save_adapter,
    set_scale,
    to_peft,
    unmerge,
)
from serial_lora.adapted import Adapted
from tests.library.tiny_models import (
    _VISION,
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
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()
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


class InBits(nn.Parameter):
    """As bitsandbytes keeps a weight: bytes, or what calls itself another type and is no matrix."""

    __module__ = "bitsandbytes.nn.modules"


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bfloat16])
def test_a_weight_in_few_bits_is_refused(dtype, method):
    model = TINY["plain"].build()
    bits = InBits(torch.zeros(32 * 16, 1, dtype=dtype), requires_grad=False)
    model[1].attention.q._parameters["weight"] = bits
    refused(
        model, lambda m: inject(m, method(rank=RANK)), "1.attention.q.weight is no plain .*bits"
    )


class UnequalAttention(nn.Module):
    """One weight for q, k and v, whose values are wider, as EfficientFormer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 8 + 8 + 32), nn.Linear(32, 32)


def test_one_weight_for_q_k_and_v_of_unequal_heights_is_refused(method):
    model = nn.Sequential(UnequalAttention())
    refused(model, lambda m: inject(m, method(rank=RANK)), "0.qkv has 48 rows.*proj reads 32")


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


@pytest.mark.parametrize("name", ["plain", "open_clip_own_attention"])
def test_a_merge_that_is_interrupted_leaves_every_weight(name, method, monkeypatch):
    model = adapted(TINY[name], method)
    before, calls, write = snapshot(model), [], merging.write_weights

    def interrupted(root, weights):
        calls.append(1)
        if len(calls) > 1:
            return write(root, weights)
        write(root, dict([*weights.items()][:1]))
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "write_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(model)
    monkeypatch.undo()
    assert_unchanged(model, before)
    expected = TINY[name].run(model)
    torch.testing.assert_close(TINY[name].run(merge(model)), expected, **CLOSE)


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


@pytest.mark.parametrize(
    "name", ["r", "lora_alpha", "target_modules", "use_rslora", "bias", "layers_to_transform"]
)
def test_other_libraries_names_of_settings_are_told(method, name):
    with pytest.raises(SerialLoRAError, match=f"{name} is .* here"):
        method(rank=4, **{name: None})
    with pytest.raises(SerialLoRAError, match="no ranks here.*rank, scale"):
        method(ranks=4)


class Taken(PlainBlock):
    """Has a child or an attribute of an adapter's name."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__()
        setattr(self, name, value)


class Bare(nn.Sequential):
    """A container with q, k and v among the children that it runs."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("q", "k", "v", "out"):
            self.add_module(name, nn.Linear(32, 32))


@pytest.mark.parametrize("build", [lambda n: Taken(n, nn.Identity()), lambda n: Taken(n, 1), Bare])
def test_a_block_that_cannot_have_the_adapter_as_a_child_is_refused(build, method):
    name = {SerialLoRAConfig: "serial_lora", LoRAConfig: "lora_k"}[method]
    model = nn.Sequential(PlainBlock(), Bare() if build is Bare else build(name))
    refused(model, lambda m: inject(m, method(RANK)), "cannot have a child named")


@pytest.mark.parametrize("model", [None, "clip", 3])
def test_what_is_no_model_is_told(model, method):
    for act in (lambda m: inject(m, method(RANK)), merge, eject, adapters, to_peft):
        with pytest.raises(SerialLoRAError, match="is an nn.Module, not"):
            act(model)


# ------------------------------------------------------------------ what users do around a model


class PlacesAddedInPlace(PlainAttention):
    """Values are read without positions, then queries and keys with them, from one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(5, 32))

    def forward(self, x: Tensor) -> Tensor:
        h = x.clone()
        v = self.v(h)
        h += self.places
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in (self.q(h), self.k(h), v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_tokens_that_change_in_place_are_adapted_as_they_are_read(around):
    model, x = nn.Sequential(PlacesAddedInPlace()), torch.randn(2, 5, 32)
    with around():
        base = model(x)
        inject(model, SerialLoRAConfig(RANK))
        assert torch.equal(model(x), base)
        seen = fill_adapters(model)(x)
        assert not torch.allclose(seen, base, **CLOSE)
        torch.testing.assert_close(merge(model)(x), seen, **CLOSE)


@pytest.mark.parametrize("assign", [False, True])
def test_a_model_from_the_meta_device_gets_its_base_and_fresh_pairs(assign, method):
    tiny = TINY["plain"]
    base = tiny.build()
    with torch.device("meta"):
        model = tiny.constructor()
    inject(model, method(RANK))
    if not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(base.state_dict(), strict=False, assign=assign)
    for pair in adapters(model).values():
        if assign:
            pair.to_empty(device="cpu")
        assert pair.lora_A.std() > 0 and not pair.lora_B.any()
    torch.testing.assert_close(tiny.run(model), tiny.run(base), rtol=0, atol=0)


@torch.no_grad()
def test_samples_that_do_not_come_first_are_refused():
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = PlainBlock()

        def forward(self, x: Tensor) -> Tensor:  # (B, L, d), inside (L, B, d)
            return self.block(x.transpose(0, 1)).transpose(0, 1)

    model = inject(Outside().eval(), SerialLoRAConfig(RANK), name="a")
    with per_sample(model, ["a", None]), pytest.raises(SerialLoRAError, match="tokens first"):
        model(torch.randn(2, 6, 32))


def test_a_weight_cannot_be_replaced_and_can_be_written(method):
    """Quantizing or reparametrizing reads it, with the adapter in it, and would put that back."""
    model = fill_adapters(inject(TINY["plain"].build(), method(RANK)))
    layer = model[0].attention.q
    raw = dict(model.named_parameters())["0.attention.q.weight"]

    def replace(_):
        layer.weight = nn.Parameter(layer.weight.detach() / 2)

    refused(model, replace, "0.attention.q was to be replaced")
    refused(model, lambda _: layer.weight.data, "eject")  # which projections are fused from
    with torch.no_grad():
        layer.weight.fill_(3.0)
    assert (raw == 3).all() and layer.weight.shape == raw.shape
    changed = layer.weight + 0
    assert changed.requires_grad and not torch.equal(changed, raw)


OLD_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6)


class Classifier(nn.Module):
    """Of one's own, as transformers' Trainer takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.vit, self.classifier = TINY["timm"].build(), nn.Linear(5, 2)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.classifier(self.vit(pixel_values))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def hugging_face() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**_VISION, num_labels=2))


@pytest.mark.skipif(OLD_TORCH, reason="transformers resumes from PyTorch 2.6 on (CVE-2025-32434)")
@pytest.mark.parametrize("make", [Classifier, hugging_face])
def test_a_trainer_of_transformers_goes_on_where_it_stopped_or_is_refused(make, tmp_path):
    """It writes a checkpoint under the hub's names and reads it by the model's, silently."""
    from transformers import Trainer, TrainingArguments

    pictures = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = [{"pixel_values": picture, "labels": i % 2} for i, picture in enumerate(pictures)]

    def trained(folder, checkpoint=None):
        torch.manual_seed(0)
        model = inject(make(), SerialLoRAConfig(RANK), also_train=["classifier"])
        options = dict(use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False)
        options |= dict(save_steps=2, max_steps=4, logging_steps=1, learning_rate=0.05)
        arguments = TrainingArguments(str(folder), per_device_train_batch_size=2, **options)
        trainer = Trainer(model, arguments, train_dataset=data)
        trainer.train(resume_from_checkpoint=checkpoint)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return losses, {n: p for n, p in model.named_parameters() if p.requires_grad}

    losses, tensors = trained(tmp_path / "whole")
    stopped = str(tmp_path / "whole" / "checkpoint-2")
    if make is hugging_face:
        with pytest.raises(SerialLoRAError, match="not in both.*save_adapter"):
            trained(tmp_path / "again", stopped)
        return
    again, others = trained(tmp_path / "again", stopped)
    assert again == losses and len(losses) == 4
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=0)


def test_adapters_of_other_places_are_not_passed_over_in_a_state_dict():
    state = inject(TINY["plain"].build(), SerialLoRAConfig(RANK)).state_dict()
    model = inject(TINY["plain"].build(), SerialLoRAConfig(RANK, blocks=[0, 1]))
    refused(model, lambda m: m.load_state_dict(state, strict=False), "not in both")
    model.load_state_dict(TINY["plain"].build().state_dict(), strict=False)
    other = inject(TINY["plain"].build(), LoRAConfig(RANK))
    other.load_state_dict(TINY["plain"].build().state_dict(), strict=False)


def test_a_language_model_has_a_text_tower(method):
    from transformers import BertConfig, BertModel

    sizes = {key: _VISION[key] for key in list(_VISION)[:4]}
    model = BertModel(BertConfig(**sizes, vocab_size=40))
    assert len(adapters(inject(model, method(RANK, towers=["text"])))) >= 3
