"""The paper's styles, from small archives laid out like the official ones."""

import os
import shutil

import pytest
from torchvision.datasets import ImageFolder

from data_scripts import fetch
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.registry import load_style
from serial_lora_course.data.style_files import (
    ARTBENCH_LIST,
    HELD_OUT,
    METADATA,
    PLAIN_CAPTION,
    load_style_files,
    title_of,
)
from tests.data.official import ARTBENCH, SARA, picture_bytes
from tests.doors import through_the_door

STYLE_OF = {"artbench": "art_nouveau", "sara": "barbie"}
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


def test_artbench_trains_on_as_many_as_the_paper(copy_of, tmp_path):
    path = copy_of("artbench") / ARTBENCH_LIST
    header, *lines = path.read_text().splitlines()
    made = [f"m_number-{n}-done.jpg,m,,True,9,9,impressionism,train,{n}" for n in range(1600)]
    path.write_text("\n".join([header, *lines, *made]) + "\n")
    for number in range(1600):
        name = f"m_number-{number}-done.jpg"
        (path.parent / "train/impressionism" / name).write_bytes(b"never opened")
    data = load_style_files("impressionism", tmp_path)
    assert len(data.train) == 1500 and len(data.test) == 1
    assert data.train.picture_ids == sorted(data.train.picture_ids)
    (path.parent / "train/impressionism/m_one-more.jpg").write_bytes(b"never opened")
    path.write_text(path.read_text() + "m_one-more.jpg,m,,True,9,9,impressionism,train,1600\n")
    again = load_style_files("impressionism", tmp_path)
    assert len(set(again.train.picture_ids) - set(data.train.picture_ids)) <= 1  # few change


def test_works_are_read_at_their_own_size_where_they_were_fetched(copy_of, tmp_path, monkeypatch):
    copy_of("artbench")
    before = load_style_files("art_nouveau", tmp_path)
    there = {"0": picture_bytes(7, 90), "1": b"<html>not here any more</html>"}

    def bring(url, place, quiet):
        if url.rpartition("/")[2] not in there:
            raise SerialLoRAError("not there")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(there[url.rpartition("/")[2]])

    monkeypatch.setattr(fetch, "download", bring)
    ran = through_the_door(fetch.main, "artbench_originals", "--root", tmp_path, "--quiet")
    assert ran.exit_code == 0 and "1 of 7 works" in ran.out
    data = load_style_files("art_nouveau", tmp_path)
    sizes = {example.picture_id: example.picture.size for example in data.train}
    assert sizes.pop("train/art_nouveau/leon-bakst_elisium-1906.jpg") == (90, 90)
    assert set(sizes.values()) == {(32, 32)} and "1 of 4 at their own size" in data.description
    assert data.picture_fingerprint({}) != before.picture_fingerprint({})
    assert data.train.picture_ids == before.train.picture_ids


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
        ("claude-monet_water-lilies-1916-2.jpg", "claude-monet", "water lilies"),
        ("claude-monet_springtime-1.jpg", "claude-monet", "springtime 1"),
        ("claude-monet_the-seine_at_vetheuil.jpg", "claude-monet", "the seine at vetheuil"),
        ("mucha_salon-of-1896-1897.jpg", "mucha", "salon of 1896"),
        ("mucha_la-dame-aux-camélias-1896.jpg", "mucha", "la dame aux camélias"),
        ("mucha_room-1024.jpg", "mucha", "room"),  # cannot be told from a year
        ("elisium-1906.jpg", "leon-bakst", "elisium"),  # not the artist that the list names
        ("leon-bakst_untitled-1906.jpg", "leon-bakst", ""),
        ("leon-bakst_not_detected_235734.jpg", "leon-bakst", ""),
        ("leon-bakst_1906.jpg", "leon-bakst", ""),
    ],
)
def test_titles_are_freed_of_artist_and_year(file_name, artist, title):
    assert title_of(file_name, artist) == title


def test_a_work_without_a_title_is_called_plainly_and_that_is_told(prepared_root):
    data = load_style_files("art_nouveau", prepared_root)
    captions = captions_of(data.train)
    assert captions["alphonse-mucha_untitled-1896.jpg"] == PLAIN_CAPTION
    assert captions["leon-bakst_elisium-1906.jpg"] == "elisium"
    assert f"works without a title (1) are called {PLAIN_CAPTION!r}" in data.description
    assert "without a title" not in load_style_files("impressionism", prepared_root).description


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "release, lost, message",
    [
        ("artbench", ARTBENCH_LIST, "not complete.*fetch.py artbench"),
        ("artbench", "train/art_nouveau", "3 files of ArtBench-10 are missing"),
        ("sara", "finetune-dataset/BarbieCore/3.png", r"1 files .* are missing, .*3\.png"),
        ("sara", f"finetune-dataset/BarbieCore/{METADATA}", "begins with Barbie .* has 0"),
    ],
)
def test_an_incomplete_folder_is_told(copy_of, tmp_path, release, lost, message):
    path = copy_of(release) / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SerialLoRAError, match=message):
        load_style_files(STYLE_OF[release], tmp_path)


@pytest.mark.parametrize(
    "content, named",
    [
        ("title,painter\nelisium,leon-bakst\n", "'name'"),
        ("name,label,split\na_b.jpg,art_nouveau,train\n", "artist"),
        ("name,artist,label,split\na_b.jpg,a,art_nouveau\n", "missing"),  # a line cut short
        ("name,artist,label,split\n", "no train pictures"),
        ("\udcff\udcfe", "utf-8"),
    ],
)
def test_a_list_that_is_not_artbenchs_is_told(copy_of, tmp_path, content, named):
    path = copy_of("artbench") / ARTBENCH_LIST
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SerialLoRAError, match=named):
        load_style_files("art_nouveau", tmp_path)


FIRST = '{"file_name": "0.png", "text": "a doll"}'


@pytest.mark.parametrize(
    "lines, named",
    [
        (f"\n{FIRST}\nnot JSON", "line 3"),
        (f'{FIRST}\n{{"file_name": "1.png", "prompt": "a doll"}}', "line 2"),
        ('{"file_name": 7, "text": "a doll"}', "line 1"),
        ('{"file_name": "0.png", "text": 7}', "line 1"),
        ('["0.png", "a doll"]', "line 1"),
        (f"{FIRST}\n" * 5, "twice|in train and"),
        ('{"file_name": "../../../secret.png", "text": "a secret"}', "missing"),
        ('{"file_name": "SECRET", "text": "a secret"}', "missing"),
    ],
)
def test_metadata_that_do_not_fit_their_folder_are_told(copy_of, tmp_path, lines, named):
    path = copy_of("sara") / "finetune-dataset/BarbieCore" / METADATA
    secret = tmp_path / "secret.png"  # neither a relative nor an absolute path leads out
    secret.write_bytes(picture_bytes(0, kind="PNG"))
    path.write_text(lines.replace("SECRET", secret.as_posix()))
    with pytest.raises(SerialLoRAError, match=named):
        load_style_files("barbie", tmp_path)
