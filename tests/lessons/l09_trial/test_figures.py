"""The study's pictures show the arms and answers that the course ships."""

import pytest

from serial_lora_course.labs.frames import on_front
from serial_lora_course.lessons.l09_trial import figures
from serial_lora_course.lessons.l09_trial.tables import read_found
from serial_lora_course.plots.style import describe

FOUND = read_found()


@pytest.mark.parametrize("cost", figures.COSTS)
def test_every_arm_stands_at_its_cost_and_gain_and_a_line_joins_the_front(cost):
    figure = figures.plot_fronts(FOUND, cost)
    for axis, (lab, arms) in zip(figure.axes, FOUND.comparable.items(), strict=True):
        line, *points = axis.lines
        front = on_front(arms, "gain", cost)
        assert line.get_xydata().tolist() == front[[cost, "gain"]].to_numpy().tolist()
        drawn = {
            tuple(xy)
            for each in points
            if each.get_linestyle() == "None"
            for xy in each.get_xydata()
        }
        assert set(map(tuple, arms[[cost, "gain"]].to_numpy())) <= drawn
        assert FOUND.units[lab] in axis.get_ylabel()
        assert {text.get_text() for text in axis.texts} == {
            w for w, _ in figures.NAMED[lab].values()
        }
        assert f"{front['title'].iloc[-1]} {front['gain'].iloc[-1]:+.1f}" in describe(figure)


def test_every_answer_has_its_interval_where_its_lab_and_question_are():
    figure = figures.plot_answers(FOUND.answers)
    asked = list(dict.fromkeys(answer.asks for answer in FOUND.answers))
    for axis, lab in zip(figure.axes, FOUND.arms, strict=True):
        own = [answer for answer in FOUND.answers if answer.lab == lab]
        for bars, answer in zip(axis.containers, own, strict=True):
            assert bars.lines[0].get_xydata()[0].tolist() == [
                answer.like.mean,
                asked.index(answer.asks),
            ]
            (segment,) = bars.lines[2][0].get_segments()
            assert segment[:, 0].tolist() == pytest.approx([answer.like.low, answer.like.high])
    assert "SAM, blocks: the last half above the first: holds, +0.99 ± 0.37" in describe(figure)
