"""LoRA+ groups: every trainable tensor once, the ratio exact."""

from __future__ import annotations

from serial_lora import inject, lora_plus_groups
from tests.library.tiny_models import RANK, TINY


def test_every_trainable_tensor_in_exactly_one_group(tiny, method):
    model = inject(tiny.build(), method(rank=RANK, stream=tiny.stream))
    groups = lora_plus_groups(model, lr=2e-4, ratio=20, weight_decay=0.01)
    assert [group["name"] for group in groups] == ["lora_A", "lora_B"]
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    for group in groups:
        assert all(names[id(p)].endswith(group["name"]) for p in group["params"])
    placed = [names.pop(id(p)) for group in groups for p in group["params"]]
    assert not names and len(placed) == len(set(placed))
    for group in groups:
        assert group["weight_decay"] == 0.01 and group["params"]
    assert groups[1]["lr"] == 20 * groups[0]["lr"] == 20 * 2e-4


def test_what_the_user_left_trainable_is_a_group_of_its_own(method):
    model = inject(TINY["timm"].build(), method(rank=RANK))
    model.head.requires_grad_(True)
    groups = lora_plus_groups(model, lr=1e-3, ratio=16)
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("lora_A", 1e-3),
        ("lora_B", 16e-3),
        ("other", 1e-3),
    ]
    assert {id(p) for p in groups[2]["params"]} == {id(p) for p in model.head.parameters()}
    assert groups[0]["weight_decay"] == 0
