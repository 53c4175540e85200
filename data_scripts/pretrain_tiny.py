"""Pretrain the tiny backbones that the package carries: ``python data_scripts/pretrain_tiny.py --help``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from serial_lora_course.data.releases import data_root
from serial_lora_course.door import enter

DESCRIPTION = """\
Pretrain a tiny backbone from nothing, on CPU: clip on emoji of thirteen designs (needs npm and the
extra 'pretrain'), sam on Twemoji over photographs, sd3 on Twemoji and their names; or fit the
classifier of the tiny styles (styles, in seconds). Config, float16 weights and card end up in --out;
copy them to serial_lora_course/assets/weights to ship them."""
#: What is pretrained -> its options, as the cards of the shipped weights write them.
OPTIONS = {
    "clip": {"minutes": 42.0, "category-minutes": 11.0, "seed": 0},
    "sam": {"minutes": 80.0, "seed": 0},
    "sd3": {"minutes": 90.0, "autoencoder-minutes": 12.0, "seed": 0, "start": ""},
    "styles": {},
}
HELP = {
    "minutes": "of training",
    "category-minutes": "then on kinds of things",
    "autoencoder-minutes": "of the autoencoder, before",
    "seed": "of weights, batches and noise",
    "start": "folder with transformer and vae to go on from",
}


def main(words: Sequence[str]) -> None:
    """Pretrain what a command line names. Each imports its own libraries, which take seconds."""
    parser = argparse.ArgumentParser(
        prog="python data_scripts/pretrain_tiny.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="clip|sam|sd3|styles")
    for name, options in OPTIONS.items():
        add = commands.add_parser(name).add_argument
        add("--out", type=Path, help="folder of the result")
        for option, default in options.items():
            add(f"--{option}", type=type(default), default=default, help=HELP[option])
    recipe = vars(parser.parse_args(words))
    command, out = recipe.pop("command"), recipe.pop("out")
    folder = out or data_root() / "pretraining" / command
    asked = [command]
    for name, value in recipe.items():
        if value != "":  # of a folder to start from, its name will do for a card
            value = Path(value).name if name == "start" else f"{value:g}"
            asked += [f"--{name.replace('_', '-')}", value]
    if command == "clip":
        from data_scripts.pretraining import clip

        clip.Pretraining(folder, clip.Recipe(**recipe), shlex.join(asked)).run()
    elif command == "sam":
        from data_scripts.pretraining import sam

        sam.SamPretraining(folder, sam.Recipe(**recipe), shlex.join(asked)).run()
    elif command == "sd3":
        from data_scripts.pretraining import sd3

        sd3.pretrain(folder, shlex.join(asked), **recipe)
    else:
        from data_scripts.pretraining import styles

        styles.pretrain(folder)
    print(f"Finished; see {folder}")


if __name__ == "__main__":
    enter("pretrain_tiny", main)
