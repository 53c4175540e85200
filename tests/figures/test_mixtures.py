"""The figures of mixed adapters."""

from serial_lora_course.lessons.l11_many.figures import plot_mixture
from serial_lora_course.plots.style import describe

BASE, GOOD = {"a": 30.0, "b": 40.0}, {"a": 80.0, "b": 50.0}


def test_a_mixture_has_a_bar_a_task_beside_the_base():
    figure = plot_mixture({"1 / 0": GOOD, "1 / 1": BASE}, BASE)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [80, 30, 50, 40]
    assert [line.get_ydata()[0] for line in axes.lines] == [30, 40]
    assert "1 / 0: a 80, b 50" in describe(figure) and "without adapters a 30" in describe(figure)
