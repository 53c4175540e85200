"""What every pretraining run shares, on a model of nine numbers: clock, checkpoints, curve, card."""

import csv
import json
from dataclasses import asdict, dataclass

import pytest
import torch
from torch import nn

from data_scripts.pretraining.loop import PretrainingRun
from tests.labs.lab_models import same_tensors


@dataclass(frozen=True)
class Recipe:
    minutes: float = 8 / 60  # eight steps of the clock below
    learning_rate: float = 0.1
    weight_decay: float = 0.01
    start: str = "/somewhere/earlier"
    seed: int = 0


class Run(PretrainingRun):
    """Learns to double its input; something is thrown away in the end."""

    name = "tiny-double"
    power_cut: int | None = None

    def __init__(self, folder, recipe=Recipe()):  # noqa: B008 - it is frozen
        super().__init__(folder, recipe, recipe.minutes)
        self.set_up(nn.Linear(2, 3), nn.Linear(3, 2), average=0.9)

    def one_step(self):
        if self.step == self.power_cut:
            raise KeyboardInterrupt
        self.set_learning_rate(self.recipe.learning_rate, self.seconds / self.budget, 0.1)
        inputs = torch.randn(4, 2, generator=torch.Generator().manual_seed(self.step))
        outputs = self.trained[1](self.model(inputs))
        return self.descend((outputs - 2 * inputs).square().mean())

    def measure(self):
        return {"norm": self.model.weight.norm().item()}

    def write_model(self):
        self.write_weights()

    def card(self):
        return self.facts("double") | {"measured": self.measured()}


pytestmark = pytest.mark.usefixtures("clock")


def state(run):
    return {name: tensor.clone() for name, tensor in run.trained.state_dict().items()}


def test_an_interrupted_run_goes_on_and_ends_as_if_uninterrupted(tmp_path, capsys):
    whole = Run(tmp_path / "whole")
    whole.run()
    stopped = Run(tmp_path / "stopped")
    stopped.power_cut = 6
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = Run(tmp_path / "stopped")
    assert 0 < resumed.step < 8 and "going on from step" in capsys.readouterr().out
    resumed.run()
    assert resumed.step == whole.step == 8 and resumed.curve[-1] == whole.curve[-1]
    assert same_tensors(state(resumed), state(whole))
    trained = state(whole)
    with resumed.averaged(), whole.averaged():
        assert same_tensors(state(resumed), state(whole))
        assert not same_tensors(state(whole), trained)
    assert same_tensors(state(whole), trained)  # the average was lent
    assert not list((tmp_path / "stopped").glob("*.tmp"))


def test_what_is_written_is_read_off_the_run(tmp_path):
    run = Run(tmp_path)
    run.run()
    names = {"checkpoint.pt"} | {
        f"tiny-double.{end}" for end in ("safetensors", "card.json", "curve.csv")
    }
    assert {path.name for path in tmp_path.iterdir()} == names
    card = json.loads((tmp_path / "tiny-double.card.json").read_text())
    assert card["command"] == "python data_scripts/pretrain_tiny.py double"
    assert card["recipe"] == asdict(Recipe()) | {"start": "earlier"}  # not where it lay
    assert (card["steps"], card["parameters"], card["minutes"]) == (8, 9, 0.13)
    with (tmp_path / "tiny-double.curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 5, 8]
    assert float(rows[-1]["norm"]) == card["measured"]["norm"]


def test_matrices_alone_are_decayed(tmp_path):
    run = Run(tmp_path)
    decay = {
        id(parameter): group["weight_decay"]
        for group in run.optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter in run.trained.parameters():
        assert decay[id(parameter)] == (0.01 if parameter.ndim == 2 else 0)


def test_the_rate_warms_up_and_ends_at_zero(tmp_path):
    run, rates = Run(tmp_path), []
    for done in (0, 0.05, 0.1, 0.5, 1):
        run.set_learning_rate(1.0, done, 0.1)
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert 0 < rates[0] < rates[1] < rates[2] > rates[3] > rates[4]
    assert rates[3] == pytest.approx(0.5) and rates[4] == pytest.approx(0)
