"""The data scripts, run as commands against a web server on localhost."""

import hashlib
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
from torchvision import datasets as torchvision_datasets
from torchvision.datasets.voc import DATASET_YEAR_DICT
from typer.testing import CliRunner

from data_scripts import few_shot_indices
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import download as download_module
from serial_lora_course.data.classification import PAPER_DATASETS, load_classification
from serial_lora_course.data.download import FileFacts
from serial_lora_course.data.fewshot import read_index_file
from serial_lora_course.data.segmentation import load_segmentation
from serial_lora_course.data.segmentation_files import PAPER_SETS, RELEASES
from serial_lora_course.data.sources import archive_folder, prepare, sources_file
from serial_lora_course.data.style_files import PAPER_STYLES, STYLE_RELEASES
from serial_lora_course.data.styles import load_style
from tests.data_scripts.official_archives import (
    FOOD_PASSWORD,
    FOOD_SIZE,
    locked_zip_bytes,
    mask_bytes,
    picture_bytes,
    tar_bytes,
    zip_bytes,
)

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = list(PAPER_DATASETS)
RELEASE_NAMES = list(RELEASES)
STYLE_RELEASE_NAMES = list(STYLE_RELEASES)


def source_of(name):
    return import_module(f"data_scripts.{name}").SOURCE


def run(name, *arguments):
    return CliRunner().invoke(import_module(f"data_scripts.{name}").app, [*arguments, "--quiet"])


def serve(server, archives):
    for file_name, content in archives.items():
        server.serve(file_name, content)


def arguments_for(server, root):
    """The options with which every script takes the small archives; only one minds the password."""
    options = ("--other-archives", "--password", FOOD_PASSWORD)
    return ("--root", str(root), "--base-url", server.url, *options)


def visible(root):
    """Everything below the data root but archives, and the lock that guards them."""
    return sorted(path.name for path in root.iterdir() if path.name != "archives")


def load_with_torchvision(name, root):
    """One picture through torchvision's own class, offline."""
    kind = {
        "caltech101": torchvision_datasets.Caltech101,
        "food101": torchvision_datasets.Food101,
        "eurosat": torchvision_datasets.EuroSAT,
        "oxford_pets": torchvision_datasets.OxfordIIITPet,
        "dtd": torchvision_datasets.DTD,
    }[name]
    return kind(root, download=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_fetches_verifies_and_prepares(server, tmp_path, official_archives, name):
    serve(server, official_archives[name])
    arguments = ("--root", str(tmp_path), "--base-url", server.url, "--other-archives")
    result = run(name, *arguments)
    assert result.exit_code == 0, result.output
    assert "is ready" in result.output and "archives are kept" in result.output
    folder = PAPER_DATASETS[name].folder
    assert visible(tmp_path) == sorted([folder, f"{name}.sources.json"])

    data = load_with_torchvision(name, tmp_path)
    picture, label = data[len(data) - 1]
    assert picture.size == (24, 24) and label >= 1
    assert len(load_classification(name, "paper", tmp_path).train) > 0

    recorded = json.loads((tmp_path / f"{name}.sources.json").read_text())["archives"]
    assert recorded == {
        file_name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file_name, content in official_archives[name].items()
    }

    again = run(name, *arguments)
    assert again.exit_code == 0
    assert all(len(served.requests) == 1 for served in server.files.values())


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_a_script_brings_pictures_with_their_masks(server, tmp_path, official_archives, name):
    serve(server, official_archives[name])
    result = run(name, *arguments_for(server, tmp_path))
    assert result.exit_code == 0, result.output
    assert "is ready" in result.output and "CoOp" not in result.output
    assert (tmp_path / RELEASES[name].folder).is_dir()
    for dataset in [key for key, chosen in PAPER_SETS.items() if chosen.release == name]:
        data = load_segmentation(dataset, "paper", tmp_path)
        for example in (data.train[0], data.test[0]):
            assert example.masks.any((1, 2)).all()
            assert example.picture.size == example.masks.shape[:0:-1]
    again = run(name, *arguments_for(server, tmp_path))
    assert again.exit_code == 0
    assert all(len(served.requests) == 1 for served in server.files.values())


@pytest.mark.parametrize("name", STYLE_RELEASE_NAMES)
def test_a_script_brings_pictures_with_their_captions(server, tmp_path, official_archives, name):
    serve(server, official_archives[name])
    result = run(name, *arguments_for(server, tmp_path))
    assert result.exit_code == 0, result.output
    assert "is ready" in result.output and "archives are kept" in result.output
    assert visible(tmp_path) == sorted([STYLE_RELEASES[name].folder, f"{name}.sources.json"])
    for style in [key for key, chosen in PAPER_STYLES.items() if chosen.release == name]:
        data = load_style(style, "paper", tmp_path)
        for example in (data.train[0], data.test[0]):
            assert example.caption and example.picture.mode == "RGB"
    recorded = json.loads((tmp_path / f"{name}.sources.json").read_text())["archives"]
    assert {file_name: facts["sha256"] for file_name, facts in recorded.items()} == {
        file_name: hashlib.sha256(content).hexdigest()
        for file_name, content in official_archives[name].items()
    }
    again = run(name, *arguments_for(server, tmp_path), "--remove-archives")
    assert again.exit_code == 0
    assert all(len(served.requests) == 1 for served in server.files.values())


def test_what_is_packed_anew_for_each_download_is_not_held_to_the_first(
    server, tmp_path, official_archives
):
    """A hash of Dropbox's archive would refuse the next, equally good one."""
    serve(server, official_archives["floodnet"])
    assert run("floodnet", *arguments_for(server, tmp_path), "--remove-archives").exit_code == 0
    assert not sources_file("floodnet", tmp_path).exists()
    (tmp_path / RELEASES["floodnet"].folder).rename(tmp_path / "moved-away")
    (content,) = official_archives["floodnet"].values()
    server.serve("FloodNet.zip", content + b"\0")
    assert run("floodnet", *arguments_for(server, tmp_path)).exit_code == 0


@pytest.mark.parametrize("name", [*NAMES, "voc_person"])
def test_official_facts_are_held_against_what_a_mirror_serves(
    server, tmp_path, official_archives, name
):
    serve(server, official_archives[name])
    result = run(name, "--root", str(tmp_path), "--base-url", server.url)
    assert result.exit_code == 2
    assert "are expected" in result.output or "is expected" in result.output
    assert "by hand" in result.output
    assert visible(tmp_path) == []
    assert [path.name for path in archive_folder(source_of(name), tmp_path).iterdir()] == [".lock"]


@pytest.mark.parametrize("name", STYLE_RELEASE_NAMES)
def test_official_counts_are_held_against_archives_of_styles(
    server, tmp_path, official_archives, name
):
    serve(server, official_archives[name])
    result = run(name, "--root", str(tmp_path), "--base-url", server.url)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert f"where {source_of(name).pictures:,} in 2 are expected" in result.output
    assert visible(tmp_path) == [f"{name}.sources.json"]


@pytest.mark.parametrize("name", ["foodseg103", "floodnet"])
def test_official_counts_are_held_against_an_archive_without_published_hash(
    server, tmp_path, official_archives, name
):
    serve(server, official_archives[name])
    arguments = ("--root", str(tmp_path), "--base-url", server.url, "--password", FOOD_PASSWORD)
    result = run(name, *arguments)
    source = source_of(name)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert f"where {source.pictures:,} in {source.classes} are expected" in result.output
    assert not (tmp_path / RELEASES[name].folder).exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", STYLE_RELEASE_NAMES)
def test_help_of_the_styles_says_the_same_and_how_many(name):
    text = " ".join(run(name, "--help").output.split())
    for part in ("Licence:", "Cite:", "--root", "--base-url", f"ROOT/archives/{name}/"):
        assert part in text
    source = source_of(name)
    assert f"{source.pictures:,} captioned pictures in 2 styles" in text
    assert all(archive.file_name in text for archive in source.archives)
    assert source.browser_address in text and ("browser" in text) == bool(source.browser_address)


@pytest.mark.parametrize("name", [*NAMES, *RELEASE_NAMES])
def test_help_says_licence_citation_and_the_way_without_network(name):
    result = run(name, "--help")
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    for part in ("Licence:", "Cite:", "--root", "--base-url", f"ROOT/archives/{name}/"):
        assert part in text
    source = source_of(name)
    masks = "with masks of" if name in RELEASES else "in"
    assert f"{source.pictures:,} pictures {masks} {source.classes} classes" in text


@pytest.mark.parametrize("name", [*NAMES, "voc_person"])
def test_facts_are_those_of_torchvision(name):
    """The MD5s and addresses are facts that torchvision carries too."""
    vision = {
        "food101": [(torchvision_datasets.Food101._URL, torchvision_datasets.Food101._MD5)],
        "oxford_pets": list(torchvision_datasets.OxfordIIITPet._RESOURCES),
        "dtd": [(torchvision_datasets.DTD._URL, torchvision_datasets.DTD._MD5)],
        "voc_person": [(DATASET_YEAR_DICT["2012"]["url"], DATASET_YEAR_DICT["2012"]["md5"])],
    }
    if name in vision:
        ours = [archive.facts.md5 for archive in source_of(name).archives]
        assert ours == [md5 for _, md5 in vision[name]]
        for archive, (url, _) in zip(source_of(name).archives, vision[name], strict=True):
            assert url in archive.urls
    else:
        import inspect

        module = {"caltech101": "caltech", "eurosat": "eurosat"}[name]
        text = inspect.getsource(import_module(f"torchvision.datasets.{module}"))
        (archive,) = source_of(name).archives
        assert archive.facts.md5 in text and archive.urls[0] in text


def test_as_a_program_outside_the_repository(server, tmp_path, official_archives):
    serve(server, official_archives["eurosat"])
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
    assert "Traceback" not in result.output
    assert not (tmp_path / source_of(name).folder).exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    return result.output


def test_404(server, tmp_path):
    output = fail(server, tmp_path)
    assert "404" in output and "by hand" in output
    assert visible(tmp_path) == []


def test_truncated_then_resumed(server, tmp_path, official_archives, monkeypatch):
    content = zip_bytes({f"2750/Forest/Forest_{i}.jpg": os.urandom(40_000) for i in range(1, 11)})
    cut = [len(content) // 2, 0]  # the second attempt brings nothing, so the command gives up
    server.serve("EuroSAT.zip", content, stop_after=cut)
    assert "goes on from there" in fail(server, tmp_path)
    kept = sorted(path.name for path in (tmp_path / "archives" / "eurosat").iterdir())
    assert kept == [".lock", "EuroSAT.zip.part", "EuroSAT.zip.part.json"]
    result = run("eurosat", "--root", str(tmp_path), "--base-url", server.url, "--other-archives")
    assert result.exit_code == 0, result.output
    assert server.files["EuroSAT.zip"].requests[-1].startswith("bytes=")


def test_wrong_hash_against_what_was_recorded_at_first_use(server, tmp_path, official_archives):
    serve(server, official_archives["eurosat"])
    arguments = ("--root", str(tmp_path), "--base-url", server.url, "--other-archives")
    assert run("eurosat", *arguments, "--remove-archives").exit_code == 0
    (tmp_path / "eurosat").rename(tmp_path / "moved-away")
    content = bytearray(official_archives["eurosat"]["EuroSAT.zip"])
    content[100] ^= 1
    server.serve("EuroSAT.zip", bytes(content))
    assert "sha256" in fail(server, tmp_path)
    assert list((tmp_path / "archives" / "eurosat").glob("EuroSAT*")) == []


@pytest.mark.parametrize("member", ["../evil.txt", "/evil.txt", "2750/../../evil.txt"])
def test_a_path_that_climbs_out(server, tmp_path, member):
    server.serve("EuroSAT.zip", zip_bytes({"2750/Forest/a.jpg": b"x", member: b"x"}))
    assert "not safe to unpack" in fail(server, tmp_path)
    assert not list(tmp_path.parent.glob("evil.txt")) and not Path("/evil.txt").exists()


def test_a_path_that_climbs_out_of_an_archive_inside_the_archive(server, tmp_path):
    inner = tar_bytes({"101_ObjectCategories/ant/image_0001.jpg": b"x", "../evil.txt": b"x"})
    outer = {"caltech-101/101_ObjectCategories.tar.gz": inner}
    server.serve("caltech-101.zip", zip_bytes(outer))
    assert "not safe to unpack" in fail(server, tmp_path, "caltech101")
    assert not list(tmp_path.rglob("evil.txt"))


def test_no_space_for_the_download(server, tmp_path, official_archives, monkeypatch):
    serve(server, official_archives["eurosat"])
    usage = type(download_module.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: usage(9, 8, 1))
    assert "only 1 bytes are free" in fail(server, tmp_path)
    assert visible(tmp_path) == []


def test_no_space_while_unpacking(server, tmp_path, official_archives, monkeypatch):
    serve(server, official_archives["oxford_pets"])

    def full(opened, folder, tick):
        (folder / "half.jpg").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download_module, "_unpack", full)
    assert "no space is left" in fail(server, tmp_path, "oxford_pets")
    assert not list(tmp_path.rglob("half.jpg"))


def test_a_damaged_archive(server, tmp_path):
    server.serve("EuroSAT.zip", b"<html>not a zip</html>")
    assert "damaged or not complete" in fail(server, tmp_path)


def test_an_archive_of_another_layout(server, tmp_path):
    server.serve("EuroSAT.zip", zip_bytes({"EuroSAT_RGB/Forest/Forest_1.jpg": b"x"}))
    assert "not laid out like the official archive" in fail(server, tmp_path)


def test_an_archive_without_its_lists(server, tmp_path):
    server.serve("food-101.tar.gz", tar_bytes({"food-101/images/pie/1.jpg": b"x"}))
    assert "not complete" in fail(server, tmp_path, "food101")


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_masks_in_an_archive_of_another_layout(server, tmp_path, name):
    (archive,) = source_of(name).archives
    server.serve(archive.file_name, zip_bytes({"Images/1.png": picture_bytes(0)}))
    assert "not laid out like the official archive" in fail(server, tmp_path, name)


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_a_path_that_climbs_out_beside_masks(server, tmp_path, official_archives, name):
    (archive,) = source_of(name).archives
    (inside,) = archive.moves
    server.serve(archive.file_name, zip_bytes({f"{inside}/a.png": b"x", "../evil.txt": b"x"}))
    assert "not safe to unpack" in fail(server, tmp_path, name)
    assert not list(tmp_path.parent.glob("evil.txt"))


def test_a_picture_without_its_mask(server, tmp_path):
    picture = "FoodSeg103/Images/img_dir/train/1.jpg"
    members = {
        picture: picture_bytes(0, FOOD_SIZE),
        "FoodSeg103/Images/ann_dir/train/2.png": mask_bytes(FOOD_SIZE, [(1, 0, 0, 9, 9)]),
        "FoodSeg103/Images/img_dir/test/3.jpg": picture_bytes(0, FOOD_SIZE),
        "FoodSeg103/Images/ann_dir/test/3.png": mask_bytes(FOOD_SIZE, [(1, 0, 0, 9, 9)]),
    }
    server.serve("FoodSeg103.zip", locked_zip_bytes(members, FOOD_PASSWORD))
    assert "ann_dir/train/1.png" in fail(server, tmp_path, "foodseg103")


def test_the_password_is_asked_for_before_anything_is_fetched(server, tmp_path, official_archives):
    serve(server, official_archives["foodseg103"])
    result = run("foodseg103", "--root", str(tmp_path), "--base-url", server.url)
    assert result.exit_code == 2 and "--password" in result.output
    assert source_of("foodseg103").password_at in result.output
    assert server.files["FoodSeg103.zip"].requests == []


def test_a_wrong_password_costs_no_second_download(server, tmp_path, official_archives):
    serve(server, official_archives["foodseg103"])
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


@pytest.mark.parametrize("name", STYLE_RELEASE_NAMES)
def test_captioned_pictures_in_an_archive_of_another_layout(server, tmp_path, name):
    for archive in source_of(name).archives:
        server.serve(archive.file_name, zip_bytes({"pictures/1.png": picture_bytes(0)}))
    output = fail(server, tmp_path, name)
    assert "not laid out like the official archive" in output or "begins with Barbie" in output


@pytest.mark.parametrize("name", STYLE_RELEASE_NAMES)
def test_a_path_that_climbs_out_beside_captions(server, tmp_path, official_archives, name):
    serve(server, official_archives[name])
    file_name = source_of(name).archives[0].file_name
    server.serve(file_name, zip_bytes({"Barbie/metadata.jsonl": b"{}", "../evil.txt": b"x"}))
    assert "not safe to unpack" in fail(server, tmp_path, name)
    assert not list(tmp_path.parent.glob("evil.txt"))


def test_pictures_without_their_list(server, tmp_path, official_archives):
    tar = "artbench-10-imagefolder-split.tar"
    server.serve(tar, official_archives["artbench"][tar])
    output = fail(server, tmp_path, "artbench")
    assert "404" in output and "ArtBench-10.csv" in output and "by hand" in output
    server.serve("ArtBench-10.csv", b"<html>moved</html>")
    assert "not ArtBench's list of pictures" in fail(server, tmp_path, "artbench")


def test_what_only_a_browser_gets_is_asked_for_in_one_sentence(tmp_path, official_archives):
    source = source_of("sara")
    place = archive_folder(source, tmp_path) / "SaRA.zip"
    arguments = ("--root", str(tmp_path), "--other-archives")
    result = run("sara", *arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output
    for part in (source.browser_address, str(place), str(tmp_path / "SaRA")):
        assert part in result.output
    assert visible(tmp_path) == []
    with zipfile.ZipFile(io.BytesIO(official_archives["sara"]["SaRA.zip"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    place.write_bytes(tar_bytes(members))  # a tar file under that name is as good
    assert run("sara", *arguments, "--remove-archives").exit_code == 0
    assert not place.exists() and load_style("barbie", "paper", tmp_path).train[0].caption


def test_an_unpacked_folder_of_styles_put_there_by_hand_is_enough(prepared_root, tmp_path):
    official = prepared_root / "SaRA" / "finetune-dataset"
    shutil.copytree(official / "BarbieCore", tmp_path / "SaRA" / "Barbie")
    lacking = run("sara", "--root", str(tmp_path), "--other-archives")
    assert lacking.exit_code == 2 and "begins with Cyberpunk" in lacking.output
    shutil.copytree(official / "CyberPunk", tmp_path / "SaRA" / "Cyberpunk")
    counted = run("sara", "--root", str(tmp_path))
    assert counted.exit_code == 2 and "has 17 captioned pictures in 2 styles" in counted.output
    assert run("sara", "--root", str(tmp_path), "--other-archives").exit_code == 0


def test_no_address(tmp_path):
    result = run("eurosat", "--root", str(tmp_path), "--base-url", "mirror")
    assert result.exit_code == 2 and "not a web address" in result.output


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run("eurosat", "--root", str(tmp_path / "file"))
    assert result.exit_code == 2 and "choose another folder" in result.output


# --- the function behind the scripts -------------------------------------------------------------


def test_archives_put_there_by_hand_need_no_network(tmp_path, official_archives):
    source = source_of("dtd")
    folder = archive_folder(source, tmp_path)
    folder.mkdir(parents=True)
    for file_name, content in official_archives["dtd"].items():
        (folder / file_name).write_bytes(content)
    prepare(source, tmp_path, base_url="http://127.0.0.1:9", other_archives=True, progress=False)
    assert len(load_classification("dtd", "paper", tmp_path).test) == 6


def test_known_facts_and_counts_are_enforced(server, tmp_path, official_archives):
    content = official_archives["eurosat"]["EuroSAT.zip"]
    server.serve("EuroSAT.zip", content)
    real = source_of("eurosat")
    archive = replace(
        real.archives[0],
        urls=(f"{server.url}/EuroSAT.zip",),
        facts=FileFacts(md5=hashlib.md5(content).hexdigest()),
    )
    with pytest.raises(SerialLoRAError, match="30 pictures in 3 classes where 27,000 in 10"):
        prepare(replace(real, archives=(archive,)), tmp_path, progress=False)
    assert not (tmp_path / "eurosat").exists()
    small = replace(real, archives=(archive,), pictures=30, classes=3)
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


def test_an_unreadable_record_is_told(tmp_path):
    source = source_of("eurosat")
    sources_file("eurosat", tmp_path).write_text("{")
    with pytest.raises(SerialLoRAError, match="delete it, and it is recorded anew"):
        prepare(source, tmp_path, progress=False)


# --- few-shot index files ------------------------------------------------------------------------


def test_index_files_for_the_paper_data(prepared_root):
    arguments = ["--scale", "paper", "--root", str(prepared_root)]
    path = prepared_root / "eurosat" / "few_shot.json"
    path.unlink(missing_ok=True)
    stale = CliRunner().invoke(
        few_shot_indices.app, [*arguments, "--check", "--dataset", "eurosat"]
    )
    assert stale.exit_code == 1 and "not current: eurosat" in stale.output
    written = CliRunner().invoke(few_shot_indices.app, arguments)
    assert written.exit_code == 0, written.output
    assert read_index_file(path).dataset == "eurosat"
    assert CliRunner().invoke(few_shot_indices.app, [*arguments, "--check"]).exit_code == 0
    unknown = CliRunner().invoke(few_shot_indices.app, [*arguments, "--dataset", "cifar"])
    assert unknown.exit_code == 2 and "unknown data set" in unknown.output
