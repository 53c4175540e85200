"""What a user can get wrong with the core: one sentence each, and the model as it was."""

import pytest
import torch
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    eject,
    inject,
    load_adapter,
    lora_plus_groups,
    merge,
    save_adapter,
    to_peft,
)
from tests.library.tiny_models import TINY, fill_adapters  # noqa: E402

METHODS = pytest.mark.parametrize("method", [SerialLoRAConfig, LoRAConfig])


@pytest.mark.parametrize("towers", [5, True, 1.5, "", [], ["picture"], [["image"]]])
def test_towers_that_are_no_towers(towers):
    with pytest.raises(SerialLoRAError, match="towers must name some of image, text"):
        SerialLoRAConfig(rank=2, towers=towers)


@pytest.mark.parametrize("thing", ["model", None, {"weight": torch.zeros(2)}, nn.Linear])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(SerialLoRAError, match="nn.Module"):
        inject(thing, SerialLoRAConfig(rank=2))


def test_a_rate_that_overflows_is_refused():
    model = inject(TINY["timm"].build(), SerialLoRAConfig(rank=2))
    with pytest.raises(SerialLoRAError, match="lr times ratio must be a finite number"):
        lora_plus_groups(model, lr=1e308, ratio=20)


@METHODS
def test_a_model_without_values_is_not_merged_or_saved(method, tmp_path):
    model = inject(TINY["timm"].build().to("meta"), method(rank=2))
    path = tmp_path / "a.safetensors"
    for act in (merge, to_peft, lambda model: save_adapter(model, path)):
        with pytest.raises(SerialLoRAError, match="meta device.*load its weights"):
            act(model)
    assert not path.exists()
    save_adapter(inject(TINY["timm"].build(), method(rank=2)), path)
    for empty in (model, TINY["timm"].build().to("meta")):
        with pytest.raises(SerialLoRAError, match="meta device.*load its weights"):
            load_adapter(empty, path)
    eject(model)


def test_a_diverged_adapter_does_not_replace_a_good_file(tmp_path):
    model = fill_adapters(inject(TINY["timm"].build(), SerialLoRAConfig(rank=2)))
    path = save_adapter(model, tmp_path / "a.safetensors")
    content = path.read_bytes()
    with torch.no_grad():
        next(adapter_parameters(model))[0, 0] = float("nan")
    with pytest.raises(SerialLoRAError, match="training diverged and nothing was saved"):
        save_adapter(model, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("path", ["", ".", "a-folder", "file/below.safetensors", "n" * 300])
def test_a_place_where_no_file_can_be(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "file").write_text("x")
    model = inject(TINY["timm"].build(), SerialLoRAConfig(rank=2))
    with pytest.raises(SerialLoRAError, match="could not be written"):
        save_adapter(model, path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a-folder", "file"]


@METHODS
@torch.no_grad()
def test_adapter_files_do_not_depend_on_data_parallel_wrappers(method, tmp_path):
    tiny = TINY["timm"]
    wrapped = nn.DataParallel(tiny.build())
    fill_adapters(inject(wrapped, method(rank=2)))
    path = save_adapter(wrapped, tmp_path / "a.safetensors")
    expected = tiny.run(wrapped.module)
    assert torch.equal(tiny.run(load_adapter(tiny.build(), path)), expected)
    again = load_adapter(nn.DataParallel(tiny.build()), path)
    assert torch.equal(tiny.run(again.module), expected)
    eject(merge(again))
    assert torch.equal(tiny.run(again.module), tiny.run(tiny.build()))
