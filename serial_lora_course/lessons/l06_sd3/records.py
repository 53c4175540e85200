"""Makes the counts again: ``python -m serial_lora_course.lessons.l06_sd3.records``, some five minutes.

It runs the solved lesson's own cells up to the forty drawings, and lets the judges count what each way draws, for
four noises, and for the other prompts.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from serial_lora import set_scale
from serial_lora_course.checking.solved import cells_before
from serial_lora_course.lessons.l06_sd3.figures import DESIGNER, PULLED, TESTS

NOISES = (0, 1000, 2000, 3000)  # the seed of the first drawing's noise


def main() -> None:
    lesson = cells_before("06", 'cap = ""')
    frozen, tuned = lesson["model"], lesson["network"]
    asking, sharing, pulled = lesson["asking"], lesson["sharing"], lesson["pulled"]
    half = copy.deepcopy(tuned)
    set_scale(half, 0.5)
    rows = []
    for others, noises in ((False, NOISES), (True, NOISES[:1])):
        studio = lesson["Studio"](lesson["lesson"], others=others)
        captions = studio.captions
        lesson["captions"], lesson["words"] = captions, lesson["judge"].text_features(captions)
        words = studio.read([lesson["in_words"].format(caption) for caption in captions])
        ways = {
            "before": asking(frozen, studio.asked),
            "in words": asking(frozen, words),
            "tuned alone": asking(tuned, words),
            "at half strength": asking(half, words),
            "guided by both": sharing(words, 0.5),
            "guided by the frozen model": sharing(words, 1),
            PULLED[0]: pulled(words, True),
            PULLED[1]: pulled(words, False),
        }
        jobs = [(noise, way) for noise in noises for way in ways] + [(0, DESIGNER)]
        for noise, way in tqdm(jobs, f"{len(captions)} prompts"):
            prompts = [*range(len(captions))]
            seeds = [noise + i for i in prompts]
            drawn = studio.real if way == DESIGNER else lesson["draw"](ways[way], seeds)
            counts = dict(zip(TESTS, lesson["verdicts"](drawn, prompts).sum(), strict=True))
            rows.append({"prompts": len(captions), "noise": noise, "way": way, **counts})
    pd.DataFrame(rows).to_csv(Path(__file__).with_name("counts.csv"), index=False)


if __name__ == "__main__":
    main()
