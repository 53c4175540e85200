"""The command that made the shipped weights, and what their cards say of it."""

import json
import shlex

import pytest
import typer

from data_scripts import pretrain_tiny
from serial_lora_course.models.weights import tiny_file

CARDS = sorted(tiny_file("").glob("*.card.json"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.name)
def test_the_command_in_a_card_can_be_given(path):
    card = json.loads(path.read_text("utf-8"))
    python, script, command, *options = shlex.split(card["command"])
    assert (python, script) == ("python", "data_scripts/pretrain_tiny.py")
    made = typer.main.get_command(pretrain_tiny.app).commands[command]
    given = made.make_context(command, options).params
    for name in given.keys() & card.get("recipe", {}).keys() - {"start"}:
        assert given[name] == card["recipe"][name]
