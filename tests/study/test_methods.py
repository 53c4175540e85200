"""The study's further methods: equal to the base when fresh, what they add to each W, undone wholly."""

import re
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from serial_lora.attention import find_attention_sites
from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import eject, inject
from serial_lora_course.labs.lab import adapted
from study.methods import ADAPTERS, get_method
from study.variants import BESIDE
from tests.labs.small_labs import small_lab

UNTIED = ("lora_qkv", "serial_untied")


@pytest.fixture(params=("clip", "sam", "sd3"))
def small(request, monkeypatch, tmp_path):
    return small_lab(request.param, monkeypatch, tmp_path / "models")


def output(lab, small):
    """The loss of one batch, in evaluation: it depends on every adapted block."""
    indices = lab.indices(lab.data, small.amounts[0], 1)
    stream = lab.stream(indices, 1)
    batch = stream.collate([stream[position] for position in range(stream.batch_size)])
    with torch.no_grad():
        return lab.objective().eval()(batch)


def disturb(model: nn.Module) -> list[nn.Parameter]:
    learning = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in learning:
            parameter += 0.3 * torch.randn_like(parameter)
    return learning


def test_fresh_it_changes_nothing_then_something_and_afterwards_the_base_is_whole(small):
    lab = small.lab()
    model = lab.backbone.model
    before = output(lab, small)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    learnt = {key: p.requires_grad for key, p in model.named_parameters()}
    classes = [type(module) for module in model.modules()]
    for name, method in ADAPTERS.items():
        with adapted(model, lab.adapter(method), seed=1):
            assert torch.allclose(output(lab, small), before, atol=2e-5), name
            assert disturb(model)
            assert not torch.allclose(output(lab, small), before, atol=1e-4), name
        assert [type(module) for module in model.modules()] == classes
        assert {key: p.requires_grad for key, p in model.named_parameters()} == learnt
        after = model.state_dict()
        assert list(after) == list(weights)
        assert all(torch.equal(after[key], tensor) for key, tensor in weights.items())
    assert torch.equal(output(lab, small), before)


# ------------------------------------------------------------------------------- what W becomes


def as_matrix(layer) -> torch.Tensor:
    """The matrix that a layer without bias multiplies tokens (N, d) by."""
    eye = torch.eye(layer.in_features)
    return (layer(eye) - layer(torch.zeros_like(eye))).T


@pytest.mark.parametrize("name", BESIDE)
def test_what_it_adds_to_each_weight(monkeypatch, tmp_path, name):
    lab = small_lab("sam", monkeypatch, tmp_path).lab(rank=3, scale_factor=0.5)
    model = lab.backbone.model
    site = find_attention_sites(model)[0]
    fused = model.get_submodule(site.projections["q"].module)
    with ExitStack() as undo, torch.no_grad():
        lab.adapter(get_method(name)).put_in(model, undo)
        disturb(model)
        pairs = [model.get_submodule(site.name).get_submodule(f"lora_{part}") for part in "qkv"]
        changed = as_matrix(fused).chunk(3)
        for pair, weight, whole in zip(pairs, fused.weight.chunk(3), changed, strict=True):
            added = 0.5 * pair.lora_B @ pair.lora_A
            if name == "serial_untied":
                added = weight @ added
            if name == "serial_rotated":  # it listens as W does, and speaks otherwise
                assert torch.allclose(pair.matrix.T @ pair.matrix, weight.T @ weight, atol=1e-4)
                assert not torch.allclose(pair.matrix, weight, atol=1e-2)
            if name == "serial_random":
                size = weight.square().sum() / len(weight)
                alike = pair.matrix.T @ pair.matrix
                assert torch.allclose(alike, size * torch.eye(len(weight)), atol=1e-4)
            if name in ("serial_rotated", "serial_random"):
                added = pair.matrix @ added
            assert torch.allclose(whole, weight + added, atol=1e-5)
        assert len({id(pair.lora_A) for pair in pairs}) == (3 if name in UNTIED else 1)
        assert len({id(pair.lora_B) for pair in pairs}) == (
            3 if name in (*UNTIED, "lora_tied") else 1
        )


# ------------------------------------------------------------------------------------ RepAdapter


class RepAdapterOfThePaper(nn.Module):
    """Luo et al. 2023: two 1 x 1 convolutions over the channels, the second one in groups."""

    def __init__(self, width, hidden, groups, scale, bias, dropout):
        super().__init__()
        self.conv_A = nn.Conv1d(width, hidden, 1, bias=bias)
        self.conv_B = nn.Conv1d(hidden, width, 1, groups=groups, bias=bias)
        self.dropout, self.scale = nn.Dropout(dropout), scale

    def forward(self, tokens):  # (B, N, d)
        channels = tokens.transpose(1, 2)
        return (channels + self.scale * self.conv_B(self.dropout(self.conv_A(channels)))).transpose(
            1, 2
        )


def test_serial_lora_is_repadapter_before_attention_with_one_group_no_bias_and_no_dropout(
    monkeypatch, tmp_path
):
    small = small_lab("sam", monkeypatch, tmp_path)
    lab = small.lab(rank=4)
    model = lab.backbone.model
    inject(model, SerialLoRAConfig(rank=4, scale=0.7))
    disturb(model)
    expected = output(lab, small)
    pairs = {
        re.sub(r"\.serial_lora.*", "", name): (module.lora_A.detach(), module.lora_B.detach())
        for name, module in model.named_modules()
        if name.endswith("serial_lora")
    }
    eject(model)
    assert not torch.allclose(output(lab, small), expected, atol=1e-4)
    for site in find_attention_sites(model):
        first, second = pairs[site.name]
        adapter = RepAdapterOfThePaper(site.width, 4, groups=1, scale=0.7, bias=False, dropout=0.0)
        with torch.no_grad():
            adapter.conv_A.weight.copy_(first[..., None])
            adapter.conv_B.weight.copy_(second[..., None])

        def after_the_norm(_, args, tokens, adapter=adapter):  # (B, H, W, d)
            return adapter(tokens.flatten(1, 2)).view_as(tokens)

        model.get_submodule(site.name).norm1.register_forward_hook(after_the_norm)
    assert torch.allclose(output(lab, small), expected, atol=1e-5)
