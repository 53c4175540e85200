"""The data scripts, run as commands against a web server on localhost."""

import hashlib
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from filelock import FileLock
from torchvision import datasets as vision
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data_scripts.fetching.download import FileFacts
from data_scripts.fetching.sources import archive_folder, prepare, sources_file
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification_files import CLASSIFICATION_RELEASES
from serial_lora_course.data.registry import (
    RELEASES,
    load_classification,
    load_segmentation,
    load_style,
)
from serial_lora_course.data.segmentation_files import MASKED_SETS
from serial_lora_course.data.style_files import STYLE_RELEASES
from tests.data_scripts.official_archives import (
    FOOD_PASSWORD,
    FOOD_SIZE,
    locked_zip_bytes,
    mask_bytes,
    picture_bytes,
    tar_bytes,
    zip_bytes,
)
from tests.doors import through_the_door

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY_SET = pytest.mark.parametrize("name", list(RELEASES))


def source_of(name):
    return import_module(f"data_scripts.{name}").SOURCE


def run(name, *arguments):
    app = import_module(f"data_scripts.{name}").app
    result = through_the_door(app, *arguments, "--quiet")
    assert "Traceback" not in result.output
    return result


def arguments_for(server, root, *more):
    """The options with which every script takes the small archives; only one minds the password."""
    options = ("--other-archives", "--password", FOOD_PASSWORD)
    return ("--root", str(root), "--base-url", server.url, *options, *more)


def visible(root):
    """Everything below the data root but archives, and the lock that guards them."""
    return sorted(path.name for path in root.iterdir() if path.name != "archives")


def load_of(name, root):
    """A data set for the labs that comes from a release."""
    if name in CLASSIFICATION_RELEASES:
        return load_classification(name, "paper", root)
    if name in STYLE_RELEASES:
        return load_style(next(iter(STYLE_RELEASES[name].styles)), "paper", root)
    wanted = next(key for key, chosen in MASKED_SETS.items() if chosen.release == name)
    return load_segmentation(wanted, "paper", root)


@EVERY_SET
def test_a_script_fetches_verifies_and_prepares(server, tmp_path, official_archives, name):
    for file_name, content in official_archives[name].items():
        server.serve(file_name, content)
    result = run(name, *arguments_for(server, tmp_path))
    assert result.exit_code == 0, result.output
    assert "is ready" in result.output and "archives are kept" in result.output
    assert ("CoOp" in result.output) == (name in CLASSIFICATION_RELEASES)
    data = load_of(name, tmp_path)
    assert data.train[0] and data.test[0]

    packed_anew = name == "floodnet"  # a hash of Dropbox's archive would refuse the next one
    record = sources_file(name, tmp_path)
    assert record.exists() != packed_anew
    if not packed_anew:
        assert json.loads(record.read_text())["archives"] == {
            file_name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for file_name, content in official_archives[name].items()
        }
    folder = RELEASES[name].folder.split("/")[0]
    assert visible(tmp_path) == sorted([folder, *([] if packed_anew else [record.name])])

    assert run(name, *arguments_for(server, tmp_path, "--remove-archives")).exit_code == 0
    assert all(len(served.requests) == 1 for served in server.files.values())


@EVERY_SET
def test_what_is_not_official_is_refused_by_hash_or_by_count(
    server, tmp_path, official_archives, name
):
    for file_name, content in official_archives[name].items():
        server.serve(file_name, content)
    arguments = ("--root", str(tmp_path), "--base-url", server.url, "--password", FOOD_PASSWORD)
    result = run(name, *arguments)
    source = source_of(name)
    assert result.exit_code == 2
    if source.archives[0].facts.known():
        assert "expected" in result.output and "by hand" in result.output
        assert visible(tmp_path) == []
        assert [path.name for path in archive_folder(source, tmp_path).iterdir()] == [".lock"]
    else:
        assert f"where {source.pictures:,} in {source.classes} are expected" in result.output
        assert set(visible(tmp_path)) <= {f"{name}.sources.json"}


@pytest.mark.parametrize("name", [*CLASSIFICATION_RELEASES, "voc_person"])
def test_facts_are_those_of_torchvision(name):
    """The MD5s and addresses are facts that torchvision carries too."""
    known = {
        "food101": [(vision.Food101._URL, vision.Food101._MD5)],
        "oxford_pets": list(vision.OxfordIIITPet._RESOURCES),
        "dtd": [(vision.DTD._URL, vision.DTD._MD5)],
        "voc_person": [(DATASET_YEAR_DICT["2012"]["url"], DATASET_YEAR_DICT["2012"]["md5"])],
    }
    archives = source_of(name).archives
    if name in known:
        for archive, (url, md5) in zip(archives, known[name], strict=True):
            assert url in archive.urls and archive.facts.md5 == md5
    else:
        module = {"caltech101": "caltech", "eurosat": "eurosat"}[name]
        text = inspect.getsource(import_module(f"torchvision.datasets.{module}"))
        assert archives[0].facts.md5 in text and archives[0].urls[0] in text


def test_as_a_program_outside_the_repository(server, tmp_path, official_archives):
    server.serve("EuroSAT.zip", official_archives["eurosat"]["EuroSAT.zip"])
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "SERIAL_LORA_DATA": str(tmp_path)}
    command = [sys.executable, str(REPOSITORY / "data_scripts" / "eurosat.py")]
    options = ["--base-url", server.url, "--other-archives", "--remove-archives"]
    done = subprocess.run(
        [*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "split_zhou_EuroSAT.json" in done.stdout
    assert "27,000" in done.stdout and "EuroSAT.zip" in done.stderr  # the count, the bar
    assert list((tmp_path / "archives" / "eurosat").glob("*.zip")) == []


# --- each thing that goes wrong: one sentence, exit code 2, nothing half-made --------------------


def fail(server, tmp_path, name="eurosat"):
    result = run(name, *arguments_for(server, tmp_path))
    assert result.exit_code == 2, result.output
    assert not (tmp_path / RELEASES[name].folder).exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not list(tmp_path.parent.rglob("evil.txt"))
    return result.output


INNER = tar_bytes({"101_ObjectCategories/ant/image_0001.jpg": b"x", "../evil.txt": b"x"})
GOOD_MASK = mask_bytes(FOOD_SIZE, [(1, 0, 0, 9, 9)])
NO_MASK = {
    "FoodSeg103/Images/img_dir/train/1.jpg": picture_bytes(0, FOOD_SIZE),
    "FoodSeg103/Images/ann_dir/train/2.png": GOOD_MASK,
    "FoodSeg103/Images/img_dir/test/3.jpg": picture_bytes(0, FOOD_SIZE),
    "FoodSeg103/Images/ann_dir/test/3.png": GOOD_MASK,
}
WRONG = {
    "not there": ("eurosat", None, "404"),
    "damaged": ("eurosat", b"<html>not a zip</html>", "damaged or not complete"),
    "climbs out": (
        "eurosat",
        zip_bytes({"2750/Forest/a.jpg": b"x", "2750/../../evil.txt": b"x"}),
        "not safe to unpack",
    ),
    "climbs out inside": (
        "caltech101",
        zip_bytes({"caltech-101/101_ObjectCategories.tar.gz": INNER}),
        "not safe to unpack",
    ),
    "without its lists": (
        "food101",
        tar_bytes({"food-101/images/pie/1.jpg": b"x"}),
        "not complete",
    ),
    "a picture without its mask": (
        "foodseg103",
        locked_zip_bytes(NO_MASK, FOOD_PASSWORD),
        "ann_dir/train/1.png",
    ),
}


@pytest.mark.parametrize("name, content, named", WRONG.values(), ids=WRONG)
def test_a_wrong_archive(server, tmp_path, name, content, named):
    if content is not None:
        server.serve(source_of(name).archives[0].file_name, content)
    assert named in fail(server, tmp_path, name)


@EVERY_SET
def test_an_archive_of_another_layout(server, tmp_path, name):
    for archive in source_of(name).archives:
        server.serve(archive.file_name, zip_bytes({"pictures/1.png": picture_bytes(0)}))
    output = fail(server, tmp_path, name)
    assert "not laid out like the official archive" in output or "begins with Barbie" in output


def test_another_file_than_the_one_recorded_at_first_use(server, tmp_path, official_archives):
    content = bytearray(official_archives["eurosat"]["EuroSAT.zip"])
    server.serve("EuroSAT.zip", bytes(content))
    assert run("eurosat", *arguments_for(server, tmp_path, "--remove-archives")).exit_code == 0
    (tmp_path / "eurosat").rename(tmp_path / "moved-away")
    content[100] ^= 1
    server.serve("EuroSAT.zip", bytes(content))
    assert "sha256" in fail(server, tmp_path)
    assert list((tmp_path / "archives" / "eurosat").glob("EuroSAT*")) == []


def test_a_root_that_cannot_be_made_and_an_address_that_is_none(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("eurosat", "--root", str(tmp_path / "file"))
    assert result.exit_code == 2 and "choose another folder" in result.output
    result = run("eurosat", "--root", str(tmp_path / "new"), "--base-url", "mirror")
    assert result.exit_code == 2 and "not a web address" in result.output


# --- passwords, browsers, and what was put there by hand -----------------------------------------


def test_the_password_is_asked_for_before_anything_is_fetched(server, tmp_path, official_archives):
    server.serve("FoodSeg103.zip", official_archives["foodseg103"]["FoodSeg103.zip"])
    result = run("foodseg103", "--root", str(tmp_path), "--base-url", server.url)
    assert result.exit_code == 2 and "--password" in result.output
    assert source_of("foodseg103").password_at in result.output
    assert server.files["FoodSeg103.zip"].requests == []


def test_a_wrong_password_costs_no_second_download(server, tmp_path, official_archives):
    server.serve("FoodSeg103.zip", official_archives["foodseg103"]["FoodSeg103.zip"])
    right = arguments_for(server, tmp_path)
    wrong = run("foodseg103", *right[:-1], "swordfish")
    assert wrong.exit_code == 2 and "does not open with this password" in wrong.output
    assert visible(tmp_path) == ["foodseg103.sources.json"]
    assert run("foodseg103", *right).exit_code == 0
    assert len(server.files["FoodSeg103.zip"].requests) == 1


def test_an_unpacked_folder_put_there_by_hand_needs_neither_network_nor_password(
    prepared_root, tmp_path
):
    shutil.copytree(prepared_root / "FoodSeg103", tmp_path / "FoodSeg103")
    arguments = ("--root", str(tmp_path), "--base-url", "http://127.0.0.1:9")
    counted = run("foodseg103", *arguments)
    assert counted.exit_code == 2 and "has 8 pictures with masks of 5 classes" in counted.output
    assert run("foodseg103", *arguments, "--other-archives").exit_code == 0


def test_what_only_a_browser_gets_is_asked_for_and_taken(tmp_path, official_archives):
    source = source_of("sara")
    place = archive_folder(source, tmp_path) / "SaRA.zip"
    arguments = ("--root", str(tmp_path), "--other-archives")
    result = run("sara", *arguments)
    assert result.exit_code == 2
    for part in (source.browser_address, str(place), str(tmp_path / "SaRA")):
        assert part in result.output
    assert visible(tmp_path) == []
    with zipfile.ZipFile(io.BytesIO(official_archives["sara"]["SaRA.zip"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    place.write_bytes(tar_bytes(members))  # a tar file under that name is as good
    assert run("sara", *arguments, "--remove-archives").exit_code == 0
    assert not place.exists() and load_style("barbie", "paper", tmp_path).train[0].caption


# --- the function behind the scripts -------------------------------------------------------------


def test_known_facts_and_counts_are_enforced(server, tmp_path, official_archives):
    content = official_archives["eurosat"]["EuroSAT.zip"]
    url = server.serve("EuroSAT.zip", content)
    real = source_of("eurosat")
    facts = FileFacts(md5=hashlib.md5(content).hexdigest())
    archives = (replace(real.archives[0], urls=(url,), facts=facts),)
    with pytest.raises(SerialLoRAError, match="30 pictures in 3 classes where 27,000 in 10"):
        prepare(replace(real, archives=archives), tmp_path, progress=False)
    assert not (tmp_path / "eurosat").exists()
    small = replace(real, archives=archives, pictures=30, classes=3)
    prepare(small, tmp_path, progress=False)
    assert (tmp_path / "eurosat" / "2750").is_dir()
    (tmp_path / "eurosat" / "2750" / "Forest" / "Forest_1.jpg").unlink()
    with pytest.raises(SerialLoRAError, match="29 pictures.*move .*eurosat away"):
        prepare(small, tmp_path, progress=False)


def test_a_second_run_at_the_same_time_is_refused(tmp_path):
    source = source_of("eurosat")
    lock = archive_folder(source, tmp_path) / ".lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(SerialLoRAError, match="another run is preparing eurosat"):
        prepare(source, tmp_path, progress=False)


def test_an_unreadable_record(tmp_path):
    source = source_of("eurosat")
    sources_file("eurosat", tmp_path).write_text("{")
    with pytest.raises(SerialLoRAError, match="delete it, and it is recorded anew"):
        prepare(source, tmp_path, progress=False)
