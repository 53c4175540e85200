"""The paper's styles, from small archives laid out like the official ones."""

import os

import pytest
from torchvision.datasets import ImageFolder

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.style_files import (
    ARTBENCH,
    HELD_OUT,
    METADATA,
    load_style_files,
    title_of,
)
from tests.data import official
from tests.data.official import SARA

SARA_FOLDERS = {"barbie": "BarbieCore", "cyberpunk": "CyberPunk"}


def captions_of(part):
    return {os.path.basename(example.picture_id): example.caption for example in part}


@pytest.mark.parametrize("name", ["art_nouveau", "impressionism"])
def test_artbench_keeps_the_official_division(prepared_root, name):
    data = load_style_files(name, prepared_root)
    for part_name, part in data.parts().items():
        folder = ImageFolder(prepared_root / ARTBENCH.folder / part_name)
        label = folder.class_to_idx[name]
        expected = {os.path.basename(path) for path, found in folder.samples if found == label}
        assert set(captions_of(part)) == expected


@pytest.mark.parametrize("name", SARA_FOLDERS)
def test_sara_holds_a_fifth_out_and_passes_over_what_nobody_described(prepared_root, name):
    data = load_style_files(name, prepared_root)
    texts = SARA[SARA_FOLDERS[name]]
    captions = captions_of(data.train) | captions_of(data.test)
    assert set(captions) == {file for file, text in texts.items() if text}
    assert len(data.test) == round(HELD_OUT * len(captions))
    for file, caption in captions.items():
        given = texts[file] if isinstance(texts[file], str) else texts[file][0]
        assert caption.split() == given.split() and "  " not in caption


@pytest.mark.parametrize(
    "file_name, title",
    [
        ("leon-bakst_elisium-1906.jpg", "elisium"),
        ("claude-monet_water-lilies-1916(1).jpg", "water lilies"),
        ("mucha_la-dame-aux-camélias-1896.jpg", "la dame aux camélias"),
        ("mucha_room-1024.jpg", "room"),  # cannot be told from a year
        ("mucha_exhibition-of-1900-1900.jpg", "exhibition of 1900"),
        ("elisium-1906.jpg", "elisium"),  # of nobody
        ("leon-bakst_untitled-1906.jpg", ""),
    ],
)
def test_titles_are_freed_of_artist_and_year(file_name, title):
    assert title_of(file_name) == title


def test_metadata_that_do_not_fit_their_folder_are_told(tmp_path):
    official.write(tmp_path, "sara")
    path = tmp_path / "SaRA" / "finetune-dataset" / "BarbieCore" / METADATA
    first = '{"file_name": "0.png", "text": "a doll"}\n'
    for lines, named in ((f"{first}not JSON", "not complete"), (first, "no test pictures")):
        path.write_text(lines)
        with pytest.raises(SerialLoRAError, match=named):
            load_style_files("barbie", tmp_path)
