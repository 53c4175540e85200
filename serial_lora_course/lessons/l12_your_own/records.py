"""Makes the recorded runs again: ``python -m serial_lora_course.lessons.l12_your_own.records``, some 15 minutes.

It runs the solved lesson's own cells up to its second folder, and then its `train_on` for each folder and draw.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from serial_lora_course.checking.solved import cells_before

HERE = Path(__file__).parent


def main() -> None:
    lesson = cells_before("12", "second = ")
    lead = lesson["yours"]("4.5")
    runs, leads = [], []
    for folder, kinds in lesson["FOLDERS"].items():
        second = lesson["film_again"](kinds)
        ways = [("adapter", 160)]
        if folder == "+ her counter":
            ways += [("adapter", 640), ("probe", 160)]
        for draw in range(3):
            told = {
                steps: lesson["train_on"](second, draw, steps) for steps in {n for _, n in ways}
            }
            for way, steps in ways:
                good = {n: told[steps][n][way] == laid for n, laid in lesson["numbers"].items()}
                name = f"{way}, {folder}" + f", {steps} steps" * (steps == 640)
                right = {
                    test: round(100 * each.double().mean().item(), 1) for test, each in good.items()
                }
                runs.append({"draw": draw, "trained on": name, **right})
                print(runs[-1], flush=True)
            if len(kinds) == 1:  # the folder shows what this test shows
                (test,) = kinds
                both = (
                    told[160][test][way] == lesson["numbers"][test]
                    for way in ("adapter", lesson["RIVALS"][test])
                )
                ahead, about = (
                    round(100 * each / len(lesson["numbers"][test]), 2) for each in lead(*both)
                )
                leads.append({"test": test, "draw": draw, "ahead": ahead, "about": about})
    pd.DataFrame(runs).sort_values("draw", kind="stable").to_csv(HERE / "runs.csv", index=False)
    pd.DataFrame(leads).to_csv(HERE / "leads.csv", index=False)


if __name__ == "__main__":
    main()
