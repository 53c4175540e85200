"""The figure of a training's rounds."""

from serial_lora_course.figures.style import describe
from serial_lora_course.figures.validation import plot_validation


def test_the_kept_state_is_marked_and_told():
    rounds = {3: {"loss": 1.5, "accuracy": 0.25}, 6: {"loss": 0.5, "accuracy": 0.75}}
    rounds[9] = {"loss": 0.8, "accuracy": 0.5}
    figure = plot_validation(rounds, 6)
    loss, accuracy = figure.axes
    assert list(loss.lines[0].get_ydata()) == [1.5, 0.5, 0.8]
    assert list(accuracy.lines[0].get_ydata()) == [25, 75, 50]
    assert all(list(axes.lines[1].get_xdata()) == [6, 6] for axes in figure.axes)
    assert "step 6 with 0.50" in describe(figure) and "75%" in describe(figure)
