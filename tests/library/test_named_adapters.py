"""Several adapters on one base: switched, summed, one for each sample of a batch."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from types import SimpleNamespace

import pytest
import torch
from packaging.version import Version
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    activate,
    adapter_names,
    adapter_parameters,
    adapters,
    add_adapter,
    combine,
    disabled,
    eject,
    inject,
    load_adapter,
    lora_plus_groups,
    merge,
    per_sample,
    remove_adapter,
    save_adapter,
    set_scale,
    unmerge,
)
from tests.library.more_models import FOUND, GATED
from tests.library.test_attacks import refused
from tests.library.tiny_models import (
    BOTH,
    EVERY,
    RANK,
    TINY,
    PlainAttention,
    assert_same_bits,
    bits,
    fill_adapters,
    write_dense,
)

CLOSE = dict(rtol=1e-4, atol=5e-5)


def two_adapters(tiny, method, ranks=(RANK, RANK), model=None):
    """A model with "a" (scale 0.7) and "b" active, and the tensors of both by name."""
    model = inject(model or tiny.build(), method(ranks[0], 0.7, stream=tiny.stream), name="a")
    tensors = {"a": bits(fill_adapters(model, seed=1))}
    add_adapter(model, "b", method(ranks[1], 1.0, stream=tiny.stream))
    return model, tensors | {"b": bits(fill_adapters(model, seed=2))}


def dense(tiny, tensors, scale):
    """A plain model into whose weights these adapters are written by hand."""
    source = SimpleNamespace(state_dict=lambda: tensors)
    return write_dense(tiny, tiny.build(), source, scale)


def dense_sum(tiny, tensors, weights):
    model = tiny.build()
    parts = [
        (weight * scale, dense(tiny, tensors[name], 1.0).state_dict())
        for name, (weight, scale) in weights.items()
    ]
    before = bits(model)
    for key, tensor in model.state_dict().items():
        tensor.copy_(before[key] + sum(w * (part[key] - before[key]) for w, part in parts))
    return model


@torch.no_grad()
def test_each_acts_alone_and_all_of_them_travel(tiny, method, tmp_path):
    """Equal to dense weights after every switch, merged, copied and saved; the base comes back."""
    plain = tiny.build()
    before, base = bits(plain), tiny.run(plain)
    model, tensors = two_adapters(tiny, method, ranks=(RANK, RANK + 1), model=plain)
    expected = {
        "a": tiny.run(dense(tiny, tensors["a"], 0.7)),
        "b": tiny.run(dense(tiny, tensors["b"], 1.0)),
    }
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for name in ("b", "a", "b", "b"):
            activate(twin, name)
            assert adapter_names(twin)[0] == name and sorted(adapter_names(twin)) == ["a", "b"]
            torch.testing.assert_close(tiny.run(twin), expected[name], **CLOSE)
            torch.testing.assert_close(tiny.run(merge(twin)), expected[name], **CLOSE)
            unmerge(twin)
    for name in ("a", "b"):
        path = save_adapter(model, tmp_path / name, name)
        torch.testing.assert_close(
            tiny.run(load_adapter(tiny.build(), path)), expected[name], **CLOSE
        )
    remove_adapter(model, "a")
    load_adapter(model, tmp_path / "a", "again")
    torch.testing.assert_close(tiny.run(model), expected["a"], **CLOSE)
    assert torch.equal(tiny.run(eject(model)), base)
    assert_same_bits(before, bits(model))


@torch.no_grad()
def test_a_weighted_sum_is_exact_and_one_adapter(tiny, method, tmp_path):
    model, tensors = two_adapters(tiny, method, ranks=(2, 3))
    combine(model, {"a": 0.5, "b": -1.5}, "both")
    wanted = tiny.run(dense_sum(tiny, tensors, {"a": (0.5, 0.7), "b": (-1.5, 1.0)}))
    torch.testing.assert_close(tiny.run(model), wanted, **CLOSE)
    loaded = load_adapter(tiny.build(), save_adapter(model, tmp_path / "both"))
    assert {len(p) for n, p in loaded.named_parameters() if n.endswith("lora_A")} == {5}
    torch.testing.assert_close(tiny.run(loaded), wanted, **CLOSE)
    torch.testing.assert_close(tiny.run(eject(model, keep_merged=True)), wanted, **CLOSE)


def run_image_tower(model):
    return model.encode_image(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))


def run_sequence_first(model):
    return model(torch.randn(5, 2, 32, generator=torch.Generator().manual_seed(0))).transpose(0, 1)


BATCHES = {  # models whose outputs have the samples first
    **{name: (TINY[name], TINY[name].run) for name in ("plain", "timm", "segment_anything")},
    **{name: (TINY[name], TINY[name].run) for name in ("sd35_both", "hf_vit", "torchvision")},
    **{name: (FOUND[name], FOUND[name].run) for name in ("grouped", "timm_swin", "timm_beit")},
    "gated": (GATED["gated"], GATED["gated"].run),
    "open_clip": (TINY["open_clip"], run_image_tower),
    "open_clip_own_attention": (TINY["open_clip_own_attention"], run_image_tower),
    "sequence_first": (TINY["encoder_pre_norm_sequence_first"], run_sequence_first),
}


SAMPLES = [(batch, method) for batch in BATCHES for method in (SerialLoRAConfig, LoRAConfig)]
SAMPLES += [(batch, method) for batch in ("sequence_first", "gated") for method in (BOTH, EVERY)]
SAMPLES += [("segment_anything", BOTH), ("segment_anything", EVERY)]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "method"), SAMPLES)
def test_one_adapter_for_each_sample(batch, method, dtype):
    """One pass over a mixed batch gives each sample what its adapter gives it alone."""
    tiny, run = BATCHES[batch]
    model = two_adapters(tiny, method, ranks=(2, 3))[0]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with autocast:
        alone = {name: run(activate(model, name)) for name in ("b", "a")}
        with disabled(model):
            alone[None] = run(model)
        close = CLOSE if dtype == torch.float32 else dict(rtol=0.05, atol=0.05)
        for names in (["a", "b"], ["b", "a"], ["b", None], ["a", "a"]):
            with per_sample(model, names):
                mixed = run(model)
            for row, name in enumerate(names):
                torch.testing.assert_close(mixed[row], alone[name][row], **close)
        torch.testing.assert_close(run(model), alone["a"], rtol=0, atol=0)
        with per_sample(model, ["a", "b", "a"]), pytest.raises(SerialLoRAError, match="3 names"):
            run(model)
        if run is not run_image_tower:  # a tower alone may have windows
            with per_sample(model, ["a"]), pytest.raises(SerialLoRAError, match="1 names"):
                run(model)
        with per_sample(model, ["b", "a"]), disabled(model):
            torch.testing.assert_close(run(model), alone[None], **close)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("timm", LoRAConfig),
        pytest.param("torchvision", SerialLoRAConfig, marks=pytest.mark.slow),
        pytest.param("torchvision", LoRAConfig, marks=pytest.mark.slow),
        pytest.param("segment_anything", SerialLoRAConfig, marks=pytest.mark.slow),
        pytest.param("sd3_image", LoRAConfig, marks=pytest.mark.slow),
    ],
)
def test_nothing_of_this_compiles_anything_again(name, method):
    """Switch, scale, mixed batches, merge: one graph of each kind; outputs and gradients as without.

    And none ever serves a plain model of the same class.
    """
    if Version(torch.__version__) < Version("2.7"):
        pytest.skip("PyTorch 2.6 compiles a batch of several adapters twice")
    tiny, graphs = TINY[name], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    plain, model = tiny.build().requires_grad_(False), two_adapters(tiny, method)[0]
    twin, base = copy.deepcopy(model), tiny.run(plain)
    for each in (plain, model):
        each.forward = torch.compile(each.forward, backend=backend, fullgraph=True)

    @torch.no_grad()
    def same(act=lambda each: None):
        for each in (model, twin):
            act(each)
        torch.testing.assert_close(tiny.run(model), tiny.run(twin), **CLOSE)

    same()
    first = len(graphs)
    for other, scale in (("a", 0.3), ("b", 0.0), ("a", 2.0), ("b", 1.0)):
        same(lambda each, other=other, scale=scale: set_scale(activate(each, other), scale))
    assert len(graphs) == first
    for _ in range(2):
        with disabled(model), disabled(twin):
            same()
        for names in (["a", "b"], ["b", "a"]):
            with per_sample(model, names), per_sample(twin, names):
                same()
        same()
    assert len(graphs) == 3 * first  # as adapted, as the base, for each sample
    made = set()
    for _ in range(2):
        same(merge)
        same(unmerge)
        torch.testing.assert_close(tiny.run(plain), base, **CLOSE)
        made.add(len(graphs))
    assert len(made) == 1  # the second time nothing
    gradients = [
        torch.autograd.grad(tiny.run(each).square().mean(), list(adapter_parameters(each)))
        for each in (model, twin)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_trains_is_the_adapter_in_force(tmp_path):
    tiny = TINY["timm"]
    model, tensors = two_adapters(tiny, SerialLoRAConfig)
    parameters = list(adapter_parameters(model))
    optimizer = torch.optim.AdamW(lora_plus_groups(model, lr=1e-2))
    tiny.run(model.train()).square().mean().backward()
    optimizer.step()
    trained = bits(model)
    activate(model, "a")
    assert all(p.grad is None for p in adapter_parameters(model))
    assert all(p is q for p, q in zip(parameters, adapter_parameters(model), strict=True))
    assert_same_bits(tensors["a"], bits(model))
    assert_same_bits(trained, bits(activate(model, "b")))


@torch.no_grad()
def test_each_adapter_has_its_own_dropout():
    tiny = TINY["timm"]
    model, _ = two_adapters(tiny, SerialLoRAConfig)
    add_adapter(model, "c", SerialLoRAConfig(RANK, dropout=0.5))
    fill_adapters(model, seed=3)
    for name in ("b", "c", "a"):
        activate(model, name)
        alike = torch.equal(*(tiny.run(model.train()) for _ in range(2)))
        assert alike is (name != "c")
        assert torch.equal(*(tiny.run(model.eval()) for _ in range(2)))


WHOLE = {  # what a Ctrl-C leaves undone or done
    "activate": lambda model, path: activate(model, "a"),
    "add": lambda model, path: add_adapter(model, "c"),
    "combine": lambda model, path: combine(model, {"a": 2.0, "b": 1.0}, "c"),
    "load": lambda model, path: load_adapter(model, path),
    "load one more": lambda model, path: load_adapter(model, path, "c"),
}


def whole_state(model):
    """Everything of every adapter."""
    injection = vars(model)["serial_lora_injection"]
    each = {name: (a.config, a.tensors) for name, a in injection.inactive.items()}
    each[injection.name] = injection.config, model.state_dict()
    scales = [(pair.scale, pair.dropout.p) for pair in adapters(model).values()]
    values = {
        name: (config, {key: tensor.tolist() for key, tensor in tensors.items()})
        for name, (config, tensors) in each.items()
    }
    return injection.name, scales, values


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("act", WHOLE)
def test_ctrl_c_leaves_every_adapter_old_or_new(act, rank, tmp_path, monkeypatch):
    """At each of the moments at which a setting of a pair is written."""
    model, _ = two_adapters(TINY["plain"], SerialLoRAConfig, (2, rank))
    path = save_adapter(model, tmp_path / "b")
    fill_adapters(model, seed=3)
    old, stored, seen = whole_state(model), pickle.dumps(model), []
    torch.manual_seed(1)
    WHOLE[act](model, path)
    new, left = whole_state(model), [0]
    fill = torch.Tensor.fill_

    def interrupted(tensor, value):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return fill(tensor, value)

    while left[0] <= 0:
        twin = pickle.loads(stored)
        torch.manual_seed(1)
        left[0] = len(seen) + 1
        told = False
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "fill_", interrupted)
            try:
                WHOLE[act](twin, path)
            except KeyboardInterrupt:
                told = True
        assert told == (left[0] <= 0)  # whoever pressed it hears of it
        seen.append(whole_state(twin))
    assert all(state in (old, new) for state in seen) and old in seen and old != new


def test_requests_that_do_not_fit_are_refused(method):
    model, _ = two_adapters(TINY["timm"], method)
    other = {SerialLoRAConfig: LoRAConfig, LoRAConfig: SerialLoRAConfig}[method]
    for act, noun in (
        (lambda m: activate(m, "c"), "no adapter named 'c'; the model has: b, a"),
        (lambda m: add_adapter(m, "a"), "named 'a' already"),
        (lambda m: add_adapter(m, "c", other(RANK)), "one method"),
        (lambda m: add_adapter(m, "c", method(RANK, blocks=[0])), "same places"),
        (lambda m: remove_adapter(m, "b"), "is active"),
        (lambda m: add_adapter(m, None), "name is a str, not None"),
        (lambda m: combine(m, {"a": float("nan")}, "c"), "finite"),
        (lambda m: combine(m, None, "c"), "not None; name them with a dict"),
        (lambda m: per_sample(m, []).__enter__(), "list of names"),
        (lambda m: per_sample(m.train(), ["a"]).__enter__(), "model.eval"),
    ):
        refused(model, act, noun)
    model.eval()
    for block in (disabled(model), per_sample(model, ["a", "b"])):
        with block:
            for act in (merge, eject, lambda m: activate(m, "a"), lambda m: add_adapter(m, "c")):
                refused(model, act, "block")
    merge(model)
    for act in (lambda m: activate(m, "a"), lambda m: per_sample(m, ["a"]).__enter__()):
        refused(model, act, "unmerge")
    assert adapter_names(model) == ["b", "a"]
    set_scale(unmerge(model), 1e30)
    refused(model, lambda m: combine(m, {"b": 1e30}, "c"), "not finite")
    many, _ = two_adapters(TINY["timm"], method, ranks=(20, 20))
    refused(many, lambda m: combine(m, {"a": 1, "b": 1}, "c"), "rank 40")


# ------------------------------------------------------------- tokens that q, k and v have in common


def keys_first() -> tuple[nn.Module, PlainAttention, torch.Tensor, dict[str, torch.Tensor]]:
    """A model whose keys are computed first, its tokens, and its queries with either adapter."""
    model = two_adapters(TINY["plain"], SerialLoRAConfig)[0].eval()
    attention = next(m for m in model.modules() if isinstance(m, PlainAttention))
    tokens = torch.randn(2, 5, 32)
    queries = {}
    for name in ("a", "b"):
        activate(model, name)
        queries[name] = attention.q(tokens.clone())
    assert not torch.allclose(queries["a"], queries["b"])
    attention.k(tokens)
    return model, attention, tokens, queries


@torch.no_grad()
def test_tokens_that_a_layer_read_with_one_adapter_are_not_given_to_another_in_a_block():
    model, attention, tokens, queries = keys_first()
    with per_sample(model, ["a", "b"]):
        mixed = attention.q(tokens)
    expected = torch.stack([queries["a"][0], queries["b"][1]])
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)
    attention.k(tokens)
    with disabled(model):
        base = attention.q(tokens)
    torch.testing.assert_close(attention.q(tokens), queries["b"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base, queries["b"], atol=1e-4)


@pytest.mark.parametrize("change", [lambda m: activate(m, "a"), lambda m: set_scale(m, 0.0)])
@torch.no_grad()
def test_tokens_that_a_layer_read_before_a_switch_are_not_given_to_another_after_it(change):
    model, attention, tokens, _ = keys_first()
    change(model)
    torch.testing.assert_close(attention.q(tokens), attention.q(tokens.clone()))


@torch.no_grad()
def test_no_tokens_are_kept_once_all_have_read_them():
    model, attention, tokens, _ = keys_first()
    attention.q(tokens), attention.v(tokens)
    seen = weakref.ref(tokens)
    del tokens
    gc.collect()
    assert seen() is None
