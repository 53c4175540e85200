"""Does class.yaml hold? What it asks of the machine and its cards, found out before a class.

    cd /srv/class
    /srv/venv/bin/python /srv/serial-lora/classroom/check_class.py                  # on the class's machine
    /srv/venv/bin/python /srv/serial-lora/classroom/check_class.py --cards 24 24    # to plan: GiB of each card

The hub reads its settings through this file, so it does not start where this finds a fault.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

NAME = r"[a-z][a-z0-9_-]{0,23}"
GPU_KINDS = ("none", "share", "mps", "queue")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}  # as systemd and JupyterHub read them
#: GiB on a card of a model that waits for its turn, counted from its shapes.
WAITING = {"clip": 0.6, "sam": 0.4, "sd3": 3.9}
CONTEXT = 0.5  # GiB that CUDA takes for a process besides its tensors: a usual figure, not measured
PYTHON = 2.1e9  # bytes of a kernel besides a large model; no lesson at tiny scale takes more
SD3 = 6.2e9  # bytes of SD3's weights without T5, counted from their shapes


class Card(NamedTuple):
    """One GPU: the name that NVIDIA's driver knows it by, and its memory in GiB."""

    uuid: str
    gib: float


def stop(sentence: str) -> None:
    """End with one sentence, before anything has begun."""
    sys.exit(f"class.yaml: {sentence}")


def read_settings(path: Path) -> dict[str, Any]:
    """What class.yaml says, each setting by itself; what it leaves out is as in the file beside this one."""
    try:
        usual = yaml.safe_load(Path(__file__).with_name("class.yaml").read_text("utf-8"))
        said = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        stop(f"{path} is not there; copy the one beside jupyterhub_config.py and change it.")
    except yaml.YAMLError as error:
        stop(f"{path} is not YAML ({' '.join(str(error).split())}).")
    if not isinstance(said, dict) or (unknown := said.keys() - usual.keys()):
        stop(f"{', '.join(map(str, unknown)) if isinstance(said, dict) else said!r} is no setting.")
    for name, value in said.items():
        if not of_its_kind(value, usual[name]):
            stop(f"{name} is {value!r}; it should look like {name}: {usual[name]}.")
    settings = usual | said
    for who in ("teachers", "learners"):
        bad = [name for name in settings[who] or () if not re.fullmatch(NAME, str(name))]
        if bad or not settings[who]:
            stop(f"{who} needs names of small letters, digits, - and _, not {bad or 'nobody'}.")
    if settings["authenticator"] == "dummy":
        stop("the dummy authenticator lets anybody in as anybody; choose another.")
    if settings["gpu"] not in GPU_KINDS:
        stop(f"gpu is one of {', '.join(GPU_KINDS)}, not {settings['gpu']!r}.")
    if settings["gpu"] != "none" and not 0 < settings["gpu_share"] <= 1:
        stop(f"gpu_share is above 0 and up to 1, not {settings['gpu_share']}.")
    if unknown := set(settings["labs"]) - WAITING.keys():
        stop(f"labs are {', '.join(WAITING)}, not {', '.join(map(str, unknown))}.")
    if not re.fullmatch(rf"\d+(\.\d+)?[{''.join(UNITS)}]", str(settings["memory"])):
        stop(f"memory is a number with K, M, G or T, such as 3G, not {settings['memory']!r}.")
    return settings


def of_its_kind(value: object, usual: object) -> bool:
    """Whether a setting is a list, a number or whatever else the usual one is; None says nothing."""
    number = isinstance(usual, (int, float)) and not isinstance(usual, bool)
    return usual is None or isinstance(value, (int, float) if number else type(usual))


def people(settings: dict[str, Any]) -> list[str]:
    """Everybody who may sign in."""
    return [*settings["learners"], *settings["teachers"]]


def memory_of(settings: dict[str, Any]) -> float:
    """Bytes that one learner's programs may fill."""
    return float(settings["memory"][:-1]) * UNITS[settings["memory"][-1]]


# ------------------------------------------------------------------------------------------ cards


def find_cards(settings: dict[str, Any]) -> list[Card]:
    """The cards of this machine, as NVIDIA's driver lists them; none where the class uses none."""
    if settings["gpu"] == "none":
        return []
    ask = ["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.check_output(ask, text=True).strip().splitlines()
        return [Card(uuid, int(mib) / 1024) for uuid, mib in (line.split(", ") for line in lines)]
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        stop(f"gpu: say none, or mend NVIDIA's driver: nvidia-smi lists no card here ({error}).")


def card_of(name: str, settings: dict[str, Any], cards: list[Card]) -> Card:
    """The card on which somebody works: all get the same number of people, or one more."""
    known = people(settings)
    return cards[known.index(name) % len(cards) if name in known else -1]  # added by hand, later


def most_on_a_card(settings: dict[str, Any], cards: list[Card]) -> int:
    """How many people share the fullest card."""
    return math.ceil(len(people(settings)) / len(cards))


def shares(lab: str, settings: dict[str, Any], cards: list[Card]) -> tuple[float, float]:
    """The least share of a card in which a lab trains and looks, and the most with which all fit on it."""
    # It loads PyTorch, which a class without a GPU need not wait for.
    from serial_lora_course.labs.fit import CHOICES, LOOKS

    count, gib = most_on_a_card(settings, cards), min(card.gib for card in cards)
    needed = max(CHOICES[lab][-1][1], LOOKS[lab])  # of its thriftiest settings
    room = gib / count - CONTEXT
    if settings["gpu"] == "queue":
        room = gib - count * CONTEXT - (count - 1) * WAITING[lab]
    return math.ceil(100 * needed / gib) / 100, max(0, math.floor(100 * room / gib) / 100)


def check_cards(settings: dict[str, Any], cards: list[Card]) -> None:
    """Stop where a training of the paper's scale would not fit, alone or beside the others."""
    share, where = settings["gpu_share"], f"{min(card.gib for card in cards):.0f} GiB"
    for lab in settings["labs"]:
        least, most = shares(lab, settings, cards)
        if least > most:
            stop(
                f"{most_on_a_card(settings, cards)} people do not fit on a card of {where} for {lab}: take "
                f"more cards, one account for two people, gpu: queue, or take {lab} out of labs."
            )
        if not least <= share <= most:
            stop(
                f"gpu_share is {share}; on a card of {where} {lab} needs {least:.2f} or more, and with "
                f"{most_on_a_card(settings, cards)} people on it {most:.2f} is the most."
            )


def check(settings: dict[str, Any], cards: list[Card], planned: bool = False) -> None:
    """Stop where a class at the paper's scale does not fit these cards and a learner's memory.

    Args:
        planned: the cards are not this machine's, and so SD3's weights need not lie here.
    """
    if not cards or settings["environment"].get("SERIAL_LORA_SCALE") != "paper":
        return
    check_cards(settings, cards)
    if "sd3" not in settings["labs"]:
        return
    folder = Path(settings["data"]) / "weights" / "sd3"
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if not weights and not planned:
        stop(f"{folder} holds no weights: fetch SD3, or take sd3 out of labs.")
    needed = (weights or SD3) + PYTHON  # on its way to the card a model passes through the memory
    if memory_of(settings) < needed:
        stop(
            f"memory is {settings['memory']}, and lesson 06 needs {needed / 1e9:.1f} GB at the paper's "
            f"scale while it loads SD3: say {int(needed / UNITS['G']) + 1}G, or take sd3 out of labs."
        )


def main() -> None:
    """Say what the class.yaml of this folder comes to, and check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cards", nargs="+", type=float, help="GiB of each card, to plan with")
    given = parser.parse_args().cards
    settings = read_settings(Path.cwd() / "class.yaml")
    cards = [Card(str(index), gib) for index, gib in enumerate(given or ())] or find_cards(settings)
    for lab in settings["labs"] if cards else ():
        least, most = shares(lab, settings, cards)
        print(f"{lab} needs a gpu_share of {least:.2f}, and everybody fits with {most:.2f}.")
    count, has = len(people(settings)), psutil.virtual_memory().total / 1e9
    full = count * memory_of(settings) / 1e9
    print(f"{count} times {settings['memory']} is {full:.0f} GB of memory; here are {has:.0f}.")
    check(settings, cards, planned=given is not None)
    print("class.yaml holds.")


if __name__ == "__main__":
    main()
