"""Pretrain the tiny backbones that the package carries: ``python data_scripts/pretrain_tiny.py --help``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from serial_lora_course.data.releases import data_root
from serial_lora_course.door import enter

DESCRIPTION = """\
Pretrain a tiny backbone from nothing, on CPU: clip on 100,000 drawings of a hundred sets (needs
npm and the extra 'pretrain'), sam on Twemoji over photographs, sd3 on drawings and their names; or
fit the classifier of the tiny styles (styles, in two minutes). A run that is stopped goes on from its last
file when the same command is given again. Config, float16 weights and card end up in --out; copy them
to serial_lora_course/assets/weights to ship them."""
#: What is pretrained -> its options, as the cards of the shipped weights write them.
OPTIONS = {
    "clip": {"steps": 16000, "seed": 0},
    "sam": {"steps": 8300, "seed": 0},
    "sd3": {"steps": 16000, "autoencoder-steps": 5000, "decoder-steps": 12000, "seed": 0},
    "styles": {},
}
HELP = {
    "steps": "of training",
    "autoencoder-steps": "of the autoencoder, before",
    "decoder-steps": "of its decoder alone, after it",
    "seed": "of weights, batches and noise",
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
        asked += [f"--{name.replace('_', '-')}", str(value)]
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
