"""The paper's styles, from small archives laid out like the official ones."""

import os

import pytest
from torchvision.datasets import ImageFolder

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import load_style
from serial_lora_course.data.style_files import HELD_OUT, METADATA, load_style_files, title_of
from tests.data.official import ARTBENCH, SARA, picture_bytes

SARA_FOLDERS = {"barbie": "BarbieCore", "cyberpunk": "CyberPunk"}


def captions_of(part):
    return {os.path.basename(example.picture_id): example.caption for example in part}


# --- what is in the styles -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["art_nouveau", "impressionism"])
def test_artbench_keeps_the_official_division(prepared_root, name):
    data = load_style(name, "paper", prepared_root)
    assert (data.name, data.scale) == (name, "paper")
    assert data.description and data.attribution and "official test set" in data.split
    for part_name in ("train", "test"):
        folder = ImageFolder(data.folder / part_name)
        label = folder.class_to_idx[name]
        expected = {os.path.basename(path) for path, found in folder.samples if found == label}
        assert set(captions_of(getattr(data, part_name))) == expected
        assert expected == {
            file for (file, _), facts in ARTBENCH.items() if facts[:2] == (part_name, name)
        }


@pytest.mark.parametrize("name", SARA_FOLDERS)
def test_sara_holds_a_fifth_out_and_passes_over_what_nobody_described(prepared_root, name):
    data = load_style(name, "paper", prepared_root)
    official = SARA[SARA_FOLDERS[name]]
    captions = captions_of(data.train) | captions_of(data.test)
    assert set(captions) == {file for file, text in official.items() if text}
    assert len(data.test) == round(HELD_OUT * len(captions))
    for file, caption in captions.items():
        given = official[file] if isinstance(official[file], str) else official[file][0]
        assert caption.split() == given.split() and "  " not in caption
    assert f"without one ({len(official) - len(captions)}) are left out" in data.description


# --- titles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file_name, artist, title",
    [
        ("leon-bakst_elisium-1906.jpg", "leon-bakst", "elisium"),
        ("claude-monet_water-lilies-1916(1).jpg", "claude-monet", "water lilies"),
        ("mucha_la-dame-aux-camélias-1896.jpg", "mucha", "la dame aux camélias"),
        ("mucha_room-1024.jpg", "mucha", "room"),  # cannot be told from a year
        ("elisium-1906.jpg", "leon-bakst", "elisium"),  # not the artist that the list names
        ("leon-bakst_untitled-1906.jpg", "leon-bakst", ""),
    ],
)
def test_titles_are_freed_of_artist_and_year(file_name, artist, title):
    assert title_of(file_name, artist) == title


# --- what goes wrong -----------------------------------------------------------------------------


FIRST = '{"file_name": "0.png", "text": "a doll"}'


@pytest.mark.parametrize(
    "lines, named",
    [
        (f"\n{FIRST}\nnot JSON", "line 3"),
        (f"{FIRST}\n" * 5, "twice|in train and"),
        ('{"file_name": "../../../secret.png", "text": "a secret"}', "missing"),
    ],
)
def test_metadata_that_do_not_fit_their_folder_are_told(copy_of, tmp_path, lines, named):
    path = copy_of("sara") / "finetune-dataset/BarbieCore" / METADATA
    secret = tmp_path / "secret.png"  # neither a relative nor an absolute path leads out
    secret.write_bytes(picture_bytes(0, kind="PNG"))
    path.write_text(lines.replace("SECRET", secret.as_posix()))
    with pytest.raises(SerialLoRAError, match=named):
        load_style_files("barbie", tmp_path)
