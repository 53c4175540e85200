"""The paper's Fig. 3 on small models: what is compared, and that the base is left as it was."""

import torch

from serial_lora import eject
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import get_method
from study.spectra import beside, compared
from tests.labs.small_labs import small_lab


def test_a_comparison_is_of_what_both_learned_and_leaves_the_base(monkeypatch, tmp_path):
    """The effective rank again, of the factors themselves: dW = W B A."""
    lab = small_lab("sam", monkeypatch, tmp_path).lab(rank=3)
    model = lab.backbone.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = compared(lab, "serial_lora", seed=1, about={})
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.split()[-2] for name in record.measures} == {"q", "k", "v"}
    run_one(lab, get_method("serial_lora"), lab.amount, 1, progress=False, keep_adapter=True)
    block = next(module for module in model.modules() if hasattr(module, "serial_lora"))
    pair = block.serial_lora
    weight = block.attn.qkv.weight.chunk(3)[1]
    change = (weight @ pair.lora_B @ pair.lora_A).detach().double()
    values = torch.linalg.svdvals(change)[:3].tolist()
    entropy = -sum(v / sum(values) * torch.tensor(v / sum(values)).log().item() for v in values)
    told = record.measures["image 0 k effective_rank_serial"]
    assert abs(told - torch.tensor(entropy).exp().item()) < 2e-3 * told
    eject(model)


def test_what_lies_between():
    base, other = (
        torch.diag(torch.tensor([4.0, 3.0, 2.0])),
        torch.diag(torch.tensor([6.0, 5.0, 1.0])),
    )
    own = torch.diag(torch.tensor([5.0, 5.5, 1.5]))
    found = beside(base.double(), own.double(), other.double(), rank=2)
    assert abs(found["between"] - 2 / 3) < 1e-9  # 5 and 1.5 are, 5.5 is above both
    assert found["change_between"] == 0.5  # 2.5 is above 2, 1 is not
