"""The study's front, of made-up arms."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.study import plot_answers, plot_budget, plot_front
from serial_lora_course.labs.frames import on_front
from serial_lora_course.plots.style import describe
from serial_lora_course.study.plan import PLANS

ARMS = pd.DataFrame(
    {
        "arm": ["lora-1", "serial_lora-4", "lora-16", "oft-64", "lora-4"],
        "title": [
            "LoRA, rank 1",
            "Serial LoRA, rank 4",
            "LoRA, rank 16",
            "OFT, blocks of 64",
            "LoRA, rank 4",
        ],
        "method": ["lora", "serial_lora", "lora", "oft", "lora"],
        "parameters": [10, 10, 100, 90, 40],
        "gain": [2.0, 3.0, 5.0, 5.5, 2.5],
        "half-width": 5.0,
        "above LoRA": [-3.0, -2.0, 0.0, 0.5, -2.5],
        "above LoRA, half-width": [0.4, 0.4, 0.0, 0.3, 0.4],
        "step time": [9.0, 5.0, 9.0, 50.0, float("nan")],
        "activations, MB": 30.0,
    }
)


def test_on_the_front_is_what_nothing_smaller_beats():
    assert on_front(ARMS, "gain")["arm"].tolist() == ["serial_lora-4", "oft-64"]
    quick = on_front(ARMS, "gain", "step time")["arm"].tolist()
    assert quick == ["serial_lora-4", "lora-16", "oft-64"]


def names(axis):
    """What stands beside points, whatever is said in the corner."""
    return [text for text in axis.texts if text.get_text() and "difference" not in text.get_text()]


def points_of(axis):
    return [line for line in axis.lines if line.get_gid()]


def test_the_figure_shows_every_arm_and_tells_the_front():
    figure = plot_front({"sam": ARMS}, {"sam": "hundredths of Dice"})
    (axis,) = figure.axes
    on_it = {"rank 4", "OFT, blocks of 64"}
    assert {text.get_text() for text in names(axis)} == on_it | {"rank 1", "rank 16"}
    assert {t.get_text() for t in names(axis) if t.get_weight() == "bold"} == on_it
    line = axis.lines[0]
    assert line.get_xydata().tolist() == [[10, 3.0], [90, 5.5]]
    assert {each.get_gid() for each in points_of(axis)} == set(ARMS["arm"])
    key = {text.get_text() for text in figure.legends[0].get_texts()}
    assert key == {"LoRA", "Serial LoRA", "OFT"}
    assert "Serial LoRA, rank 4 +3.0; OFT, blocks of 64 +5.5" in describe(figure)
    assert "hundredths of Dice" in axis.get_ylabel()
    assert any("±0.4" in text.get_text() for text in axis.texts)


def test_arms_that_were_not_timed_are_left_out_of_time():
    (axis,) = plot_front({"sam": ARMS}, {"sam": "Dice"}, "step time").axes
    assert len(points_of(axis)) == len(ARMS) - 1
    nothing = ARMS.assign(**{"step time": float("nan")})
    assert "not measured" in describe(plot_front({"sam": nothing}, {"sam": "Dice"}, "step time"))


def test_labs_stand_below_each_other():
    axes = plot_front({"sam": ARMS, "sd3": ARMS[:1]}, {"sam": "Dice", "sd3": "points"}).axes
    assert [axis.get_title(loc="left") or axis.get_title() for axis in axes] == ["SAM", "SD3"]
    assert axes[0].get_position().y0 > axes[1].get_position().y1


@pytest.mark.parametrize("lab", PLANS)
def test_no_name_lies_on_another_one_and_no_point_on_a_point(lab):
    """With every arm of the plan, several of them at each size and gaining nearly the same."""
    chance = np.random.default_rng(0)
    arms = [arm for arm in PLANS[lab].arms if arm.amount is None]
    table = pd.DataFrame(
        {
            "arm": [arm.name for arm in arms],
            "title": [arm.title("percent") for arm in arms],
            "method": [arm.method for arm in arms],
            "parameters": [1000 * 4 ** (place % 4) for place in range(len(arms))],
            "gain": 7 + chance.normal(size=len(arms)),
            "above LoRA, half-width": 0.3,
            "step time": 1.0,
            "activations, MB": 1.0,
        }
    )
    figure = plot_front({lab: table}, {lab: "points"})
    figure.draw_without_rendering()
    (axis,) = figure.axes
    boxes = [text.get_window_extent() for text in names(axis)]
    assert sum(one.overlaps(other) for one, other in combinations(boxes, 2)) == 0
    inside = axis.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    points = [each.get_xydata() for each in points_of(axis)]
    places = axis.transData.transform(np.concatenate(points))
    apart = [np.abs(one - other).max() for one, other in combinations(places, 2)]
    assert min(apart) > 8  # pixels; a marker is about as wide


def test_a_budget_has_its_best_arm_and_what_is_cheaper_than_all_is_refused():
    figure = plot_budget(ARMS, "points", "parameters", 95)
    assert describe(figure).startswith(
        "Up to 95 trained parameters: best is OFT, blocks of 64, +5.5 points; "
    )
    assert "Serial LoRA, rank 4, +3.0" in describe(figure)
    with pytest.raises(SerialLoRAError, match="No arm"):
        plot_budget(ARMS, "points", "parameters", 9)


def test_every_answer_has_its_interval_where_its_lab_and_question_are():
    answers = pd.DataFrame(
        {
            "lab": ["sam", "sam", "clip"],
            "asks": ["place: before above after", "form: serial", "place: before above after"],
            "unit": ["hundredths of Dice", "hundredths of Dice", "points, above 90% of the gain"],
            "mean": [1.0, -2.0, float("nan")],
            "half-width": [0.5, 1.0, float("nan")],
            "verdict": ["holds", "fails", ""],
        }
    )
    figure = plot_answers(answers)
    sam, clip = figure.axes
    drawn = [bars.lines[0].get_xydata()[0].tolist() for bars in sam.containers]
    assert drawn == [[1.0, 0.0], [-2.0, 1.0]] and not clip.containers
    assert "missing" in clip.texts[0].get_text() and clip.get_xlabel() == "points"
    assert "SAM, form: serial: fails, -2.00 ± 1.00" in describe(figure)
