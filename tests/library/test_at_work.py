"""What users do around a model, which must be right or refused: never wrong and silent."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapters,
    combine,
    inject,
    load_adapter,
    merge,
    per_sample,
    save_adapter,
)
from serial_lora.attention import find_sites
from serial_lora.files import checksum
from tests.library.test_attacks import refused
from tests.library.tiny_models import (
    _VISION,
    RANK,
    TINY,
    PlainAttention,
    PlainBlock,
    fill_adapters,
)

CLOSE = dict(rtol=1e-4, atol=2e-5)


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


def test_a_model_that_is_offloaded_is_refused(method):
    from accelerate import cpu_offload

    model = TINY["plain"].build()
    cpu_offload(model, torch.device("cpu"))
    with pytest.raises(SerialLoRAError, match="0.attention.q are offloaded"):
        inject(model, method(RANK))
    assert not adapters(model)


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


def test_cross_attention_that_is_called_as_in_pytorch_is_left_alone():
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn, self.multihead_attn = (nn.MultiheadAttention(32, 4) for _ in range(2))

    names = [site.projections["q"].module for site in find_sites(Decoder())]
    assert names == ["self_attn"]


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


def test_a_trainer_of_transformers_goes_on_where_it_stopped(tmp_path):
    """It writes a checkpoint under the hub's names and reads it by the model's, silently."""
    from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

    pictures = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = [{"pixel_values": picture, "labels": i % 2} for i, picture in enumerate(pictures)]

    def trained(folder, checkpoint=None):
        torch.manual_seed(0)
        model = ViTForImageClassification(ViTConfig(**_VISION, num_labels=2))
        inject(model, SerialLoRAConfig(RANK), also_train=["classifier", "vit.layernorm"])
        options = dict(use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False)
        options |= dict(save_steps=2, max_steps=4, logging_steps=1, learning_rate=0.05)
        arguments = TrainingArguments(str(folder), per_device_train_batch_size=2, **options)
        trainer = Trainer(model, arguments, train_dataset=data)
        trainer.train(resume_from_checkpoint=checkpoint)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return losses, {n: p for n, p in model.named_parameters() if p.requires_grad}

    losses, tensors = trained(tmp_path / "whole")
    again, others = trained(tmp_path / "again", str(tmp_path / "whole" / "checkpoint-2"))
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


def test_equal_adapters_are_equal_files(tmp_path):
    model = fill_adapters(inject(TINY["plain"].build(), SerialLoRAConfig(RANK)))
    notes = {name: "x" for name in "badc"}
    contents = {save_adapter(model, tmp_path / f"{i}", notes=notes).read_bytes() for i in range(4)}
    assert len(contents) == 1


def test_what_a_user_mistakes_is_told_by_its_name(method, tmp_path):
    model = TINY["timm"].build()
    refused(
        model, lambda m: inject(m, method(RANK), also_train="cls_token"), "no module 'cls_token'"
    )
    inject(model, method(RANK))
    refused(model, lambda m: combine(m, {}, "c"), "name them with a dict")
    path = save_adapter(model, tmp_path / "a")
    odd = {f"\x1b{name}" * 9: tensor for name, tensor in load_file(path).items()}
    with safe_open(path, "pt") as file:
        header = {name: text for name, text in file.metadata().items() if name != "checksum"}
    save_file(odd, path, header | {"checksum": checksum(header, odd)})
    with pytest.raises(SerialLoRAError, match="has shape") as told:
        load_adapter(TINY["timm"].build(), path)
    assert len(str(told.value)) < 400 and str(told.value).isprintable()


def test_a_language_model_has_a_text_tower_and_a_last_layer_may_be_a_new_head(method):
    from transformers import BertConfig, BertModel

    sizes = {key: _VISION[key] for key in list(_VISION)[:4]}
    model = BertModel(BertConfig(**sizes, vocab_size=40))
    assert len(adapters(inject(model, method(RANK, towers=["text"])))) >= 3
    with pytest.warns(UserWarning, match="1 looks as if it had never been trained"):
        inject(nn.Sequential(TINY["timm"].build(), nn.Linear(5, 200)), method(RANK))
