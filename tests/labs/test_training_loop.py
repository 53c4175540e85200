"""The training loop: the same pictures, the same steps and the same end, however it is run."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from serial_lora.errors import SerialLoRAError
from serial_lora.parameters import lora_plus_groups
from serial_lora_course.labs.clip import CLIPObjective
from serial_lora_course.labs.training import ExampleStream, TrainingConfig, train
from tests.labs.lab_models import (
    adapted_objective,
    power_cut,
    same_tensors,
    stream,
    trained_tensors,
)

STEPS = 6


def settings(**changes) -> TrainingConfig:
    return TrainingConfig(
        **{"steps": STEPS, "lr": 1e-2, "ratio": 4.0, "precision": "no", "save_every": 0} | changes
    )


# --- the stream ----------------------------------------------------------------------------------


def test_a_stream_is_a_function_of_seed_and_position():
    one, two, other = stream(6), stream(6), stream(6, seed=2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    forwards = [one[i] for i in range(len(one))]
    assert torch.equal(torch.get_rng_state(), before)  # reading leaves the generator alone
    torch.manual_seed(2)
    backwards = [two[i] for i in reversed(range(len(two)))][::-1]
    for (picture, label), (same, same_label) in zip(forwards, backwards, strict=True):
        assert torch.equal(picture, same) and label == same_label
    assert not torch.equal(other[0][0], one[0][0])
    assert [other[i][1] for i in range(24)] != [label for _, label in forwards]


def test_every_round_covers_every_picture_in_another_order():
    pictures = [(index, index) for index in range(10)]
    some = [1, 3, 4, 8, 9]
    rounds = ExampleStream(pictures, some, tuple, seed=1, batch_size=5, steps=8)
    orders = [[rounds[position][0] for position in range(5 * r, 5 * r + 5)] for r in range(8)]
    assert all(sorted(order) == some for order in orders)
    assert len({tuple(order) for order in orders}) > 4


def test_every_example_has_random_numbers_of_its_own():
    drawn = ExampleStream([0, 1], [0, 1], lambda _: torch.rand(1).item(), 1, batch_size=2, steps=8)
    numbers = [drawn[position] for position in range(16)]  # each of the two comes eight times
    assert len(set(numbers)) == 16


# --- the loop ------------------------------------------------------------------------------------


def plain_loop(objective: nn.Module, pictures: ExampleStream, config: TrainingConfig):
    """PyTorch's AdamW and schedules, one batch a step."""
    groups = lora_plus_groups(objective, config.lr, config.ratio, config.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    schedule = {
        "cosine": CosineAnnealingLR(optimizer, config.steps, config.min_lr),
        "constant": ConstantLR(optimizer, factor=1.0),
    }[config.schedule]
    objective.train()
    losses = []
    for batch in DataLoader(pictures, pictures.batch_size):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("changes", [{}, {"min_lr": 5e-3}, {"schedule": "constant"}])
def test_the_loop_is_plain_adamw(changes):
    ours, plain = adapted_objective(), adapted_objective()
    history = train(ours, stream(STEPS), settings(**changes))
    losses = plain_loop(plain, stream(STEPS), settings(**changes))
    assert history.losses == pytest.approx(losses, abs=1e-6)
    trained, expected = trained_tensors(ours), trained_tensors(plain)
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("parts", [1, 2, 3])  # 3 does not divide a batch
@pytest.mark.parametrize("share", [None, 0.5, 1.5])
def test_what_reaches_the_optimizer_is_the_gradient_of_the_mean_loss_clipped(parts, share):
    """AdamW does not see a factor, so its steps cannot tell: the gradients themselves are looked at.

    The largest norm is a share of the gradient's own: one at which it bites, and one at which it would
    if the parts of a batch were summed.
    """
    objective = adapted_objective().train()
    loss = objective(next(iter(DataLoader(stream(1), stream(1).batch_size))))
    loss.backward()
    own = [p.grad for p in objective.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.cat([each.flatten() for each in own])).item()
    factor = min(1.0, share or 1.0)
    reached = []

    def look(optimizer, *_):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        reached.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())

    handle = register_optimizer_step_pre_hook(look)
    try:
        clip_norm = None if share is None else share * norm
        config = settings(steps=1, accumulation=parts, clip_norm=clip_norm)
        history = train(adapted_objective(), stream(1), config)
    finally:
        handle.remove()
    assert reached == [pytest.approx(factor * norm, rel=1e-4)]
    assert history.losses == [pytest.approx(loss.item(), abs=1e-5)]


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_adapter(monkeypatch):
    objective, reached = adapted_objective(), adapted_objective()
    with power_cut(CLIPObjective, batches=2):
        train(reached, stream(STEPS), settings())
    factors, forward = iter([1.0, 1.0, math.nan]), CLIPObjective.forward
    with monkeypatch.context() as patch:
        patch.setattr(CLIPObjective, "forward", lambda *a: next(factors) * forward(*a))
        with pytest.raises(SerialLoRAError, match="step 3.*smaller learning rate"):
            train(objective, stream(STEPS), settings())
    assert same_tensors(trained_tensors(objective), trained_tensors(reached))
    assert all(p.grad is None for p in objective.parameters())
    assert train(objective, stream(1), settings(steps=1)).losses[0] < math.inf


# --- interruption --------------------------------------------------------------------------------


def interrupted_state(folder: Path) -> Path:
    with power_cut(CLIPObjective, 2):
        train(adapted_objective(), stream(STEPS), settings(), save_to=folder / "run.pt")
    return folder / "run.pt"


def test_a_state_of_another_run_is_refused(tmp_path):
    """It stays where it is, and the adapter as it was."""
    state = interrupted_state(tmp_path)
    content = state.read_bytes()
    for objective, pictures, config in (
        (adapted_objective(), stream(STEPS), settings(lr=2e-2)),
        (adapted_objective(), stream(STEPS, seed=99), settings()),
        (adapted_objective(), stream(STEPS, batch_size=6), settings()),
        (adapted_objective(rank=2), stream(STEPS), settings()),
    ):
        before = trained_tensors(objective)
        with pytest.raises(SerialLoRAError, match="other settings; delete it"):
            train(objective, pictures, config, save_to=state)
        assert same_tensors(trained_tensors(objective), before)
        assert state.read_bytes() == content
