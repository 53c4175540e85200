"""The study's further methods: equal to the base when fresh, what they add to each W, undone wholly."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import nn

from serial_lora import lora_plus_groups
from serial_lora.attention import find_sites
from serial_lora.layers import SerialLoRA
from serial_lora_course.labs.lab import adapted
from study.methods import ADAPTERS, KNOWN
from study.plan import PLANS
from study.variants import BESIDE, RepAdapter
from tests.labs.small_labs import small_lab

UNTIED = ("lora_qkv", "serial_untied")
SIZES = {"vera": 4, "randlora": 4, "fourierft": 8, "oft": 4, "lora_tied": 2, "hra": 2}
"""Of methods whose size is no rank that the small models take."""


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
    planned = {arm.method for arm in PLANS[lab.name].arms} & set(ADAPTERS)
    for name in planned:
        lab.config = replace(lab.config, rank=SIZES.get(name, 4))
        with adapted(model, lab.adapter(KNOWN[name]), seed=1):
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
    site = find_sites(model)[0]
    fused = model.get_submodule(site.projections["q"].module)
    before = fused.weight.detach().clone()  # once it is adapted, its weight is the merged one
    with ExitStack() as undo, torch.no_grad():
        lab.adapter(KNOWN[name]).put_in(model, undo)
        disturb(model)
        pairs = [model.get_submodule(site.name).get_submodule(f"lora_{part}") for part in "qkv"]
        changed = as_matrix(fused).chunk(3)
        for pair, weight, whole in zip(pairs, before.chunk(3), changed, strict=True):
            added = 0.5 * pair.lora_B @ pair.lora_A
            if name == "serial_untied":
                added = weight @ added
            if name == "serial_rotated":  # it listens as W does, and speaks otherwise
                assert torch.allclose(pair.matrix.T @ pair.matrix, weight.T @ weight, atol=1e-4)
                assert not torch.allclose(pair.matrix, weight, atol=1e-2)
            if name in ("serial_even", "serial_random"):
                size = weight.square().sum() / len(weight)
                alike = pair.matrix.T @ pair.matrix
                assert torch.allclose(alike, size * torch.eye(len(weight)), atol=1e-4)
            if name == "serial_even":  # what it makes of W's own directions is symmetric
                product = pair.matrix.T @ weight
                assert torch.allclose(product, product.T, atol=1e-4)
            if name == "serial_uneven":
                values = map(torch.linalg.svdvals, (pair.matrix, weight))
                assert torch.allclose(*values, atol=1e-4)
            if hasattr(pair, "matrix") and name != "serial_untied":
                added = pair.matrix @ added
            assert torch.allclose(whole, weight + added, atol=1e-5)
        assert len({id(pair.lora_A) for pair in pairs}) == (3 if name in UNTIED else 1)
        assert len({id(pair.lora_B) for pair in pairs}) == (
            3 if name in (*UNTIED, "lora_tied") else 1
        )
        # a tensor that is shared takes one step at a time, as every other
        steps = [id(p) for group in lora_plus_groups(model, lr=1) for p in group["params"]]
        assert len(steps) == len(set(steps))


# ------------------------------------------------------------------------------------ RepAdapter


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 2])
def test_repadapter_is_two_convolutions_and_of_one_group_without_biases_serial_lora(groups):
    """Luo et al. 2023: two 1 x 1 convolutions over the channels, the second one in groups."""
    adapter = RepAdapter(8, 4, scale=0.7, dropout=0.0, groups=groups)
    disturb(adapter)
    one, two = nn.Conv1d(8, 4, 1), nn.Conv1d(4, 8, 1, groups=groups)
    one.weight.copy_(adapter.down.weight[..., None])
    one.bias.copy_(adapter.down.bias)
    two.weight.copy_(adapter.up.flatten(0, 1)[..., None])
    two.bias.copy_(adapter.up_bias)
    tokens = torch.randn(2, 5, 8)
    expected = tokens + 0.7 * two(one(tokens.mT)).mT
    assert torch.allclose(adapter(tokens), expected, atol=1e-6)
    if groups == 1:
        serial = SerialLoRA(8, 4, scale=0.7)
        serial.lora_A.copy_(adapter.down.weight)
        serial.lora_B.copy_(adapter.up[0])
        adapter.down.bias.zero_()
        adapter.up_bias.zero_()
        assert torch.allclose(adapter(tokens), serial(tokens), atol=1e-6)
