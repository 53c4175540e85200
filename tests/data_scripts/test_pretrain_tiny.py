"""The command that made the shipped weights, and what their cards say of it and of the records."""

import json
import shlex

import pytest
import typer

from data_scripts import pretrain_tiny
from data_scripts.pretraining.card import SUMMARIES, adapted, complete_card
from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.records import shipped_records
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


@pytest.mark.parametrize("task", SUMMARIES)
def test_a_card_says_what_the_records_say(task):
    """The first amount's numbers also by hand."""
    card = json.loads(tiny_file(f"tiny-{task}.card.json").read_text("utf-8"))
    assert card["adapted"] == adapted(task)
    records, summary = shipped_records(task), SUMMARIES[task]
    amount = records[0].amount
    chosen = [record for record in records if record.amount == amount]
    row = card["adapted"][summary.amount.format(amount)]
    for method in {record.method for record in chosen}:
        values = [r.measures[summary.measure] for r in chosen if r.method == method]
        assert row[method] == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_a_card_of_no_model_is_refused():
    with pytest.raises(SerialLoRAError, match="clip, sam, sd3"):
        complete_card("clap")
