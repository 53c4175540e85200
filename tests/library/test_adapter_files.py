"""Adapter files: what is in them, what is refused, and that nothing is ever half done."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    disabled,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
    set_scale,
    to_peft,
    unmerge,
)
from serial_lora.files import checksum, read_header
from serial_lora.injection import unwrapped
from tests.library.test_attacks import refused
from tests.library.tiny_models import RANK, TINY, adapted, fill_adapters


def trained(name="timm", method=SerialLoRAConfig, **options):
    return adapted(TINY[name], method, **options)


def contents(path):
    return read_header(path), {name: t.tolist() for name, t in load_file(path).items()}


def rewrite(path, metadata=None, tensors=None, **changes):
    """The same file with some of its header or tensors changed, as if it had been saved so."""
    stored = load_file(path) if tensors is None else tensors
    header = (header_of(path, "checksum") if metadata is None else metadata) | changes
    save_file(stored, path, header | {"checksum": checksum(header, stored)})


@torch.no_grad()
def test_what_a_file_holds_and_sets_in_a_model_with_adapters(method, tmp_path):
    """That it goes into a plain model with equal outputs, `test_dense` says of every model."""
    tiny, model = TINY["timm"], trained("timm", method, scale=0.7, dropout=0.1)
    notes = {"class_names": "cat, dog"}
    path = save_adapter(model, tmp_path / "adapter.safetensors", notes=notes)
    assert list(tmp_path.iterdir()) == [path]
    stored = load_file(path)
    assert set(stored) == {n for n in model.state_dict() if n.endswith(("lora_A", "lora_B"))}
    assert all(tensor.dtype == torch.float32 for tensor in stored.values())
    assert read_header(path).notes == notes

    again = inject(tiny.build(), method(rank=RANK))
    places = [id(parameter) for parameter in again.parameters()]
    load_adapter(again, path)  # the scale comes from the file
    assert places == [id(parameter) for parameter in again.parameters()]
    learning = {n for n, p in again.named_parameters() if p.requires_grad}
    assert learning == set(stored)
    assert torch.equal(tiny.run(again), tiny.run(model.eval()))


@torch.no_grad()
def test_saving_while_merged_disabled_or_rescaled(tmp_path):
    model = trained()
    run = TINY["timm"].run
    path = tmp_path / "adapter.safetensors"
    plain = contents(save_adapter(model, path))
    merge(model)
    assert contents(save_adapter(model, path)) == plain
    with disabled(unmerge(model)):
        assert contents(save_adapter(model, path)) == plain
    set_scale(model, 0.25)
    expected = run(model)
    save_adapter(model, path)
    assert torch.equal(run(load_adapter(TINY["timm"].build(), path)), expected)


@torch.no_grad()
@pytest.mark.parametrize("changed", ["head.weight", "patch_embed.proj.bias"])
def test_what_is_not_in_an_adapted_block_may_differ(changed, tmp_path):
    """A new head is no other base."""
    path = save_adapter(trained(), tmp_path / "adapter.safetensors")
    model = TINY["timm"].build()
    model.get_parameter(changed).add_(1)
    load_adapter(model, path)
    with pytest.raises(SerialLoRAError, match="other weights"):
        load_adapter(scaled_weights(1.02), path)


def header_of(path, *without):
    with safe_open(path, "pt") as file:
        return {name: text for name, text in file.metadata().items() if name not in without}


def bad_tensors(path, change):
    """Rewrite with the first tensor changed, or taken out where that gives None."""
    tensors = load_file(path)
    name = next(iter(tensors))
    changed = {name: change(tensors.pop(name))}
    rewrite(
        path, tensors=tensors | {n: t.contiguous() for n, t in changed.items() if t is not None}
    )


# What happens to the file at a path, and the noun of the sentence; flipped bits are in tests/hostile.
BROKEN = {
    "missing": (lambda p: p.unlink(), "no adapter file"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"lora_A": [1]})), "damaged"),
    "foreign": (lambda p: save_file({"weight": torch.ones(2)}, p), "save_adapter"),
    "version": (lambda p: rewrite(p, format_version="9" * 9999), "version 999.*9[.]{3},"),
    "method": (lambda p: rewrite(p, method="dora"), "damaged"),
    "config not json": (lambda p: rewrite(p, config="{rank"), "damaged"),
    "rank lies": (lambda p: rewrite(p, config=json.dumps({"rank": 5})), "rank|shape"),
    "missing tensor": (lambda p: bad_tensors(p, lambda t: None), "shape"),
    "extra tensor": (
        lambda p: rewrite(p, tensors=load_file(p) | {"more": torch.ones(1)}),
        "shape",
    ),
    "odd names": (
        lambda p: rewrite(p, tensors={f"\x1b{n}" * 99: t for n, t in load_file(p).items()}),
        "has shape",
    ),
    "odd modules": (
        lambda p: rewrite(p, also_train=json.dumps(["\x1b\n" * 999])),
        "no module",
    ),
    "wrong shape": (lambda p: bad_tensors(p, lambda t: t[:-1]), "shape"),
    "whole numbers": (lambda p: bad_tensors(p, torch.Tensor.int), "type torch.int32"),
    "not finite": (lambda p: bad_tensors(p, lambda t: t / 0), "not finite"),
    "no checksum": (lambda p: save_file(load_file(p), p, header_of(p, "checksum")), "damaged"),
    "no sample": (lambda p: rewrite(p, metadata=header_of(p, "checksum", "sample")), "damaged"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_every_bad_file_is_one_sentence_and_changes_nothing(tmp_path, damage):
    path = save_adapter(trained(), tmp_path / "adapter.safetensors")
    break_it, noun = BROKEN[damage]
    break_it(path)
    models = [TINY["timm"].build()]
    if damage not in (
        "rank lies",
        "odd modules",
    ):  # where a model has adapters, it need not be asked
        models.append(trained())
    for model in models:
        refused(model, lambda m: load_adapter(m, path), noun)


@pytest.mark.parametrize("path", [None, 3])
def test_what_is_no_name_of_a_file_is_one_sentence(path):
    for act in (save_adapter, load_adapter, lambda _, file: read_header(file)):
        refused(trained(), lambda m, act=act: act(m, path), "could not be written|cannot be read")


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda: inject(TINY["timm"].build(), SerialLoRAConfig(rank=8)), "method or rank"),
        (lambda: inject(TINY["timm"].build(), LoRAConfig(rank=RANK)), "another model, method"),
        (lambda: inject(TINY["timm"].build(), SerialLoRAConfig(RANK, blocks=[1])), "other places"),
        (lambda: merge(inject(TINY["timm"].build(), SerialLoRAConfig(RANK))), "unmerge"),
        (lambda: TINY["hf_vit"].build(), "another model"),
        (lambda: scaled_weights(1.5), "other weights"),
        (lambda: scaled_weights(1.02), "other weights"),  # a base that was trained a little more
        (lambda: torch.nn.Linear(3, 3), "no attention block"),
        (lambda: TINY["timm"].build().half(), "float16"),
    ],
)
def test_a_good_file_for_another_model(tmp_path, prepare, sentence):
    path = save_adapter(trained(), tmp_path / "adapter.safetensors")
    torch.manual_seed(0)
    refused(prepare(), lambda m: load_adapter(m, path), sentence)


@pytest.mark.parametrize("base", [lambda: TINY["timm"].build().half(), lambda: scaled_weights(1.5)])
def test_another_base_on_request(tmp_path, base):
    path = save_adapter(trained(), tmp_path / "adapter.safetensors")
    loaded = load_adapter(base(), path, check_base=False)
    assert all(map(torch.equal, adapter_parameters(loaded), adapter_parameters(trained())))
    refused(
        TINY["hf_vit"].build(), lambda m: load_adapter(m, path, check_base=False), "another model"
    )


def scaled_weights(factor):
    model = TINY["timm"].build()
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.mul_(factor)
    return model


def test_what_there_is_nothing_to_save_of(tmp_path, method):
    path = save_adapter(trained(method=method), tmp_path / "new" / "folder" / "a.safetensors")
    content = path.read_bytes()
    diverged, without_values = trained(method=method), trained(method=method).to("meta")
    apart = torch.nn.ModuleList([trained(method=method), trained(method=method)])
    with torch.no_grad():
        list(adapter_parameters(diverged))[-1][0, 0] = float("inf")
    for model, noun in (
        (diverged, "diverged"),
        (eject(trained()), "no adapters"),
        (apart, "2 parts"),
    ):
        with pytest.raises(SerialLoRAError, match=noun):
            save_adapter(model, path)
    assert path.read_bytes() == content
    for act in (merge, lambda model: eject(model, keep_merged=True), to_peft):
        refused(diverged, act, "not finite")
    for model in (without_values, TINY["timm"].build().to("meta")):
        with pytest.raises(SerialLoRAError, match="meta device"):
            load_adapter(model, path)
    eject(without_values)


def test_equal_adapters_are_equal_bytes_and_say_their_whole_configuration(tmp_path):
    """So that a hash of a file tells whether an adapter changed."""
    model, notes = trained(), {name: "said" for name in "abcdefgh"}
    files = [save_adapter(model, tmp_path / str(n), notes=notes).read_bytes() for n in range(4)]
    assert len(set(files)) == 1
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        to_peft(model, folder)
    one, other = ((folder / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert one == other
    config = json.loads(header_of(tmp_path / "0")["config"])
    assert set(config) == {"rank", "scale", "dropout", "towers", "blocks", "stream", "places"}
    assert read_header(tmp_path / "0").config == SerialLoRAConfig(RANK)


@torch.no_grad()
@pytest.mark.parametrize(
    "wrap", [lambda model: torch.compile(model, backend="eager"), torch.nn.DataParallel]
)
def test_names_do_not_depend_on_wrappers(wrap, method, tmp_path):
    tiny = TINY["timm"]
    wrapped = inject(wrap(tiny.build()), method(rank=RANK))
    inside = unwrapped(fill_adapters(wrapped))
    expected = tiny.run(inside)
    path = save_adapter(wrapped, tmp_path / "adapter.safetensors")
    assert torch.equal(tiny.run(load_adapter(tiny.build(), path)), expected)
    other = load_adapter(wrap(tiny.build()), path)
    assert torch.equal(tiny.run(unwrapped(other)), expected)
    eject(merge(other))
    assert torch.equal(tiny.run(unwrapped(other)), tiny.run(tiny.build()))
