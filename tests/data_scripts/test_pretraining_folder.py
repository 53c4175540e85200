"""A pretraining that has no folder to work in says so before it draws a single picture."""

import pytest

from data_scripts.pretraining.clip import Recipe, pretrain
from serial_lora.errors import SerialLoRAError


def test_a_file_in_the_place_of_the_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(SerialLoRAError, match="cannot be made .*--out"):
        pretrain(path, Recipe(minutes=0.1))
    assert path.read_text() == "mine"
