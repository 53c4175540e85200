"""Figures: drawn without error, described in words, and refused when the data do not fit."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures import base as plots
from serial_lora_course.labs.methods import METHOD_TITLES

ROOT = Path(__file__).parents[2]


def results(datasets=("animals", "food"), methods=("lora", "serial_lora"), shots=(1, 4, 16)):
    """Made-up runs: accuracy rises with shots, and by a little with the method and the seed."""
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "method": method,
                "amount": shot,
                "seed": seed,
                "accuracy": 0.2 + 0.02 * shot + 0.01 * m + 0.005 * seed,
                "zero_shot_dataset": 0.2,
            }
            for dataset in datasets
            for m, method in enumerate(methods)
            for shot in shots
            for seed in range(3)
        ]
    )


def texts_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of non-empty texts whose boxes share some area."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for axes in figure.axes
        for text in axes.texts
        if text.get_text()
    ]
    return [
        (a, b)
        for i, (a, box) in enumerate(boxes)
        for b, other in boxes[i + 1 :]
        if box.overlaps(other)
    ]


def test_the_readme_picture_has_no_overlapping_words():
    figure = plots.draw_serial_vs_lora()
    assert texts_overlap(figure) == []
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sum(word.startswith("$A_") for word in words) == 4 + 1
    assert "8 d r" in figure.alt_text and "2 d r" in figure.alt_text


def test_words_in_the_readme_picture_are_legible_at_800_pixels():
    figure = plots.draw_serial_vs_lora()
    pixels_a_point = 800 / figure.get_figwidth() / 72
    sizes = [t.get_fontsize() for axes in figure.axes for t in axes.texts if t.get_text()]
    assert min(sizes) * pixels_a_point >= 12


def test_the_committed_picture_is_the_drawn_one():
    with Image.open(ROOT / "docs" / "serial_vs_lora.png") as picture:
        assert picture.text["Description"] == plots.draw_serial_vs_lora().alt_text
        assert picture.width >= 1200


def test_counts_are_written_on_their_bars():
    figure = plots.plot_counts()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["3,932,160", "983,040", "4,718,592", "1,179,648", "18,874,368", "4,718,592"]
    assert "18,874,368" in figure.alt_text
    widths = [bar.get_width() for bar in plots.plot_counts({"one": (8, 2)}).axes[0].patches]
    assert widths == [8, 2]
    with pytest.raises(SerialLoRAError):
        plots.plot_counts({})


def test_accuracy_lines_are_the_means_over_seeds():
    frame = results()
    figure = plots.plot_accuracy_by_shots(frame)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["animals", "food", "average over data sets"]
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    for method, title in (("lora", "LoRA"), ("serial_lora", "Serial LoRA")):
        part = frame[(frame["dataset"] == "food") & (frame["method"] == method)]
        expected = [100 * part[part["amount"] == s]["accuracy"].mean() for s in (1, 4, 16)]
        np.testing.assert_allclose(lines[title].get_ydata(), expected)
    assert lines["zero-shot"].get_ydata()[0] == pytest.approx(20)
    assert "Serial LoRA 53.5%" in figure.alt_text


def test_one_data_set_one_seed_and_an_unknown_method_are_drawn_too():
    frame = results(datasets=("pets",), methods=("lora_plus", "my_method"), shots=(2,))
    figure = plots.plot_accuracy_by_shots(frame[frame["seed"] == 0])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["pets"]
    assert "my_method" in figure.alt_text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="seed"), "lacks seed"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(accuracy=f["accuracy"] * 100), "divide percentages"),
    ],
)
def test_results_that_do_not_fit_are_refused(spoil, message):
    with pytest.raises(SerialLoRAError, match=message):
        plots.plot_accuracy_by_shots(spoil(results()))


def test_the_average_is_over_runs_that_every_data_set_has():
    frame = results()
    missing = (frame["dataset"] == "food") & (frame["seed"] == 2) & (frame["method"] == "lora")
    axes = plots.plot_accuracy_by_shots(frame[~missing]).axes[2]
    means = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert means["LoRA"] == pytest.approx(100 * (0.2 + 0.02 + 0.0025))  # seeds 0 and 1
    assert means["Serial LoRA"] == pytest.approx(100 * (0.2 + 0.02 + 0.01 + 0.005))  # all three


def test_the_other_prompts_zero_shot_line_can_be_asked_for():
    frame = results().assign(zero_shot_generic=0.1)
    figure = plots.plot_accuracy_by_shots(frame, zero_shot="zero_shot_generic")
    line = next(line for line in figure.axes[0].lines if line.get_label() == "zero-shot")
    assert line.get_ydata()[0] == pytest.approx(10)
    with pytest.raises(SerialLoRAError, match="lacks zero_shot_generic"):
        plots.plot_accuracy_by_shots(results(), zero_shot="zero_shot_generic")


# Of the two charts against the share of the training pictures: how each is drawn, and the columns
# of its measure, of the model as it was, and of its other grey line.
BY_PERCENT = {
    "dice": (plots.plot_dice_by_percent, ("dice", "base_dice", "box_dice")),
    "fid": (plots.plot_fid_by_percent, ("fid", "base_fid", "real_fid")),
}
BASE, OTHER = 0.75, 0.625


def percent_results(measure: str) -> pd.DataFrame:
    columns = BY_PERCENT[measure][1]
    frame = results(shots=(20, 50, 100)).rename(columns={"accuracy": columns[0]})
    frame[columns[0]] /= 10  # shares, which these distances happen to be too
    return frame.assign(**{columns[1]: BASE, columns[2]: OTHER})


@pytest.mark.parametrize("measure", BY_PERCENT)
def test_lines_against_the_percentage_are_the_means_over_seeds(measure):
    draw, _ = BY_PERCENT[measure]
    frame = percent_results(measure)
    figure = draw(frame)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["animals", "food", *["average over data sets"] * (measure == "dice")]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for method, title in (("lora", "LoRA"), ("serial_lora", "Serial LoRA")):
        part = frame[(frame["dataset"] == "animals") & (frame["method"] == method)]
        expected = [part[part["amount"] == share][measure].mean() for share in (20, 50, 100)]
        np.testing.assert_allclose(lines[title].get_ydata(), expected)
    assert lines["not adapted"].get_ydata()[0] == BASE
    other = {"dice": "box filled in", "fid": "real pictures"}[measure]
    assert lines[other].get_ydata()[0] == OTHER
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["20%", "50%", "100%"]
    last = frame[(frame["amount"] == 100) & (frame["method"] == "serial_lora")][measure].mean()
    assert f"Serial LoRA {last:.3g}" in figure.alt_text and f"{other} {OTHER}" in figure.alt_text


def test_a_dice_is_better_high_and_a_fid_low_and_both_say_so():
    words = {m: draw(percent_results(m)) for m, (draw, _) in BY_PERCENT.items()}
    assert words["dice"].get_supylabel() == "Dice (higher is better)"
    assert words["fid"].get_supylabel() == "FID (lower is better; logarithmic)"
    assert words["fid"].alt_text.startswith("FID against share of the training pictures")


def test_every_style_has_an_axis_of_its_own_and_its_own_words():
    frame = percent_results("fid")
    food = frame["dataset"] == "food"
    columns = ["fid", "base_fid", "real_fid"]
    frame.loc[food, columns] *= 100
    figure = plots.plot_fid_by_percent(frame)
    animals, meals = figure.axes
    assert animals.get_yscale() == meals.get_yscale() == "log"
    assert animals.get_ylim()[1] < 1 < meals.get_ylim()[0]
    figure.draw_without_rendering()
    for axes in figure.axes:  # at least two numbers to read it by, without powers of ten
        low, high = axes.get_ylim()
        ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        shown = [(value, label.get_text()) for value, label in ticks if low <= value <= high]
        assert len(shown) >= 2 and all(float(text) == pytest.approx(v) for v, text in shown)
    last = frame[(frame["amount"] == 100) & (frame["method"] == "lora")]
    for name, part in last.groupby("dataset"):
        said = figure.alt_text.partition(f"{name}: ")[2].partition(";")[0]
        assert f"not adapted {part['base_fid'].mean():.3g}" in said
        assert f" LoRA {part['fid'].mean():.3g}" in said


def test_a_distance_is_above_zero():
    frame = percent_results("fid")
    for spoiled in (frame["fid"] - 1, frame["fid"] * np.nan, frame["fid"] * 0):
        with pytest.raises(SerialLoRAError, match="fid is a distance"):
            plots.plot_fid_by_percent(frame.assign(fid=spoiled))
    with pytest.raises(SerialLoRAError, match="lacks real_fid"):
        plots.plot_fid_by_percent(frame.drop(columns="real_fid"))


def test_every_method_of_the_labs_has_a_look_and_a_title():
    from serial_lora_course.labs.methods import METHODS

    assert set(METHODS) == set(plots.METHODS) == set(METHOD_TITLES)


def test_pictures_of_every_form_are_shown_alike():
    array = np.linspace(0, 1, 5 * 6 * 3, dtype=np.float32).reshape(5, 6, 3)
    byte = (array * 255).round().astype(np.uint8)
    forms = [Image.fromarray(byte), byte, array, torch.from_numpy(array).permute(2, 0, 1)]
    figure = plots.show_pictures(forms, ["image", "bytes", "floats", "tensor"], columns=2)
    drawn = [np.asarray(axes.images[0].get_array(), dtype=float) for axes in figure.axes]
    for picture in drawn:
        scaled = picture / 255 if picture.max() > 1 else picture
        np.testing.assert_allclose(scaled, array, atol=1 / 255)
    assert "image; bytes; floats; tensor" in figure.alt_text


def test_a_mask_is_drawn_in_grey_and_transparency_is_kept():
    transparent = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    figure = plots.show_pictures([np.eye(4), torch.eye(4).bool()[None], transparent])
    assert [axes.images[0].get_array().shape for axes in figure.axes] == [(4, 4), (4, 4), (4, 4, 4)]


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(SerialLoRAError, match="no pictures"):
        plots.show_pictures([])
    with pytest.raises(SerialLoRAError, match="1 titles"):
        plots.show_pictures([np.eye(2)] * 2, ["one"])
    with pytest.raises(SerialLoRAError, match="2 or 3 dimensions"):
        plots.show_pictures([np.zeros((2, 3, 4, 4))])


def test_a_large_figure_gets_fewer_colours_and_looks_the_same():
    noise = np.random.default_rng(0).normal(0, 12, (240, 320, 3))
    slopes = np.add.outer(np.linspace(40, 200, 240), np.linspace(0, 40, 320))[..., None]
    figure = plots.show_pictures([np.clip(slopes + noise, 0, 255).astype(np.uint8)] * 6, size=3)
    as_it_was = io.BytesIO()
    with plots.house_style():
        figure.savefig(as_it_was, format="png", dpi=plots.SCREEN_DPI)
    assert as_it_was.tell() > plots.LARGE
    small = plots.figure_png(figure)
    assert len(small) < as_it_was.tell() / 2
    with Image.open(io.BytesIO(small)) as picture, Image.open(as_it_was) as whole:
        assert picture.mode == "P" and picture.text["Description"] == figure.alt_text
        pixels = [np.asarray(each.convert("RGB"), float) for each in (picture, whole)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 6


def test_a_displayed_figure_carries_its_description_three_times(capture_display):
    plots.display_figure(plots.plot_counts({"a model": (8, 2)}))
    picture, caption = capture_display
    assert picture["image/png"].startswith(b"\x89PNG")
    alt = picture["metadata"]["image/png"]["alt"]
    assert "a model: LoRA 8, Serial LoRA 2" in alt
    assert alt in picture["text/plain"] and alt in caption["text/markdown"]


def test_a_figure_of_ones_own_needs_a_description(capture_display):
    figure = Figure(figsize=(1, 1))
    assert plots.describe(figure) == ""
    with pytest.raises(SerialLoRAError, match="alt="):
        plots.display_figure(figure)
    plots.display_figure(figure, alt="An empty\n figure.", caption=False)
    assert len(capture_display) == 1 and plots.describe(figure) == "An empty figure."


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_saved_figure_is_the_same_file_every_time(tmp_path, suffix):
    first, second = (
        plots.save_figure(plots.plot_counts({"m": (8, 2)}), tmp_path / f"{i}.{suffix}", dpi=50)
        for i in range(2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert b"m: LoRA 8, Serial LoRA 2" in first.read_bytes()


def test_a_figure_is_not_saved_as_something_else(tmp_path):
    with pytest.raises(SerialLoRAError, match="rename"):
        plots.save_figure(plots.plot_counts({"m": (8, 2)}), tmp_path / "figure.pdf")
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_matplotlibs_settings_alone():
    def settings():
        return {name: value for name, value in rcParams.items() if name != "backend"}

    before = settings()
    plots.draw_serial_vs_lora()
    plots.plot_accuracy_by_shots(results())
    assert settings() == before


def test_shares_print_the_largest_of_each_row_in_bold():
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])
    figure = plots.plot_shares([np.eye(4)] * 2, ["a cat", "a dog", "a key"], shares)
    texts = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}
    assert set(texts) == {"70%", "20%", "10%", "5%", "15%", "80%"}
    assert {words for words, weight in texts.items() if weight == "bold"} == {"70%", "80%"}
    assert len(figure.axes) == 3 and "picture 2: a key, 80%" in figure.alt_text
    with pytest.raises(SerialLoRAError, match=r"\(2, 2\), not \(2, 3\)"):
        plots.plot_shares([np.eye(4)] * 2, ["a cat", "a dog"], shares)


def test_a_table_has_words_left_and_numbers_right(capture_display):
    frame = pd.DataFrame({"who": ["a|b", "c"], "count": [1234567, 8], "ratio": [4.0, 3.25]})
    frame["as text"] = ["**3.84**", "1,000"]
    plots.display_table(frame)
    (shown,) = capture_display
    lines = shown["text/markdown"].splitlines()
    assert lines == [
        "| who | count | ratio | as text |",
        "| :--- | ---: | ---: | ---: |",
        "| a\\|b | 1,234,567 | 4.00 | **3.84** |",
        "| c | 8 | 3.25 | 1,000 |",
    ]
