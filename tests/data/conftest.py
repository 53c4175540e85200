"""Copies of prepared releases, for tests that spoil them."""

import shutil

import pytest

from serial_lora_course.data.masks import INDEX_FILE
from serial_lora_course.data.registry import RELEASES
from serial_lora_course.data.splits import SPLIT_FILE


@pytest.fixture
def copy_of(prepared_root, tmp_path):
    """Copies a release into the data root ``tmp_path``, as its archives left it; its folder."""

    def copy(release):
        folder = tmp_path / RELEASES[release].folder
        shutil.copytree(prepared_root / RELEASES[release].folder, folder)
        for kept in (SPLIT_FILE, INDEX_FILE):
            (folder / kept).unlink(missing_ok=True)
        return folder

    return copy
