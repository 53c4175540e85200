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
MINUTES = {"clip": 42.0, "sam": 80.0, "sd3": 90.0}


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """What a command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python data_scripts/pretrain_tiny.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="clip|sam|sd3|styles")
    for name in (*MINUTES, "styles"):
        options = commands.add_parser(name)
        add = options.add_argument
        add("--out", type=Path, help="folder of the result")
        if name in MINUTES:
            add("--minutes", type=float, default=MINUTES[name], help="of training")
        if name == "clip":
            add("--category-minutes", type=float, default=11.0, help="then on kinds of things")
        if name == "sd3":
            add(
                "--autoencoder-minutes", type=float, default=12.0, help="of the autoencoder, before"
            )
        if name in MINUTES:
            add("--seed", type=int, default=0, help="of weights, batches and noise")
        if name == "sd3":
            add("--start", default="", help="folder with transformer and vae to go on from")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Pretrain what a command line names. Each imports its own libraries, which take seconds."""
    recipe = vars(parsed(words))
    command, out = recipe.pop("command"), recipe.pop("out")
    folder = out or data_root() / "pretraining" / command
    asked = shlex.join([command, *_typed(recipe)])
    if command == "clip":
        from data_scripts.pretraining import clip

        clip.Pretraining(folder, clip.Recipe(**recipe), asked).run()
    elif command == "sam":
        from data_scripts.pretraining import sam

        sam.SamPretraining(folder, sam.Recipe(**recipe), asked).run()
    elif command == "sd3":
        from data_scripts.pretraining import sd3

        sd3.pretrain(folder, asked, **recipe)
    else:
        from data_scripts.pretraining import styles

        styles.pretrain(folder)
    print(f"Finished; see {folder}")


def _typed(recipe: dict) -> list[str]:
    """Options as they are typed; of a folder to start from, its name will do for a card."""
    words: list[str] = []
    for name, value in recipe.items():
        if value != "":
            value = f"{value:g}" if name != "start" else Path(value).name
            words += [f"--{name.replace('_', '-')}", value]
    return words


if __name__ == "__main__":
    enter("pretrain_tiny", main)
