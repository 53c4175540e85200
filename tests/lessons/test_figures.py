"""Figures of the lessons draw the numbers that they are given."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from PIL.ImageColor import getrgb
from scipy import stats

from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import prepare
from serial_lora_course.lessons.l00_start.figures import (
    plot_outcomes,
    plot_pairs,
    plot_turns,
)
from serial_lora_course.lessons.l01_maths.figures import (
    plot_ends,
    plot_over_rank,
    plot_spreads,
    plot_token_moves,
)
from serial_lora_course.lessons.l02_count.figures import plot_kept, plot_memory
from serial_lora_course.lessons.l03_build.blocks import Wired, in_front, on_the_stream, one_each
from serial_lora_course.lessons.l03_build.figures import VERMILION, plot_agreement, plot_wirings
from serial_lora_course.lessons.l03_build.wiring import ELSEWHERE, places_of
from serial_lora_course.lessons.l04_clip.figures import (
    plot_ahead,
    plot_losses,
    plot_pull,
    plot_unseen,
    show_cosines,
    show_disputed,
)
from serial_lora_course.lessons.l05_sam.figures import (
    PAPER,
    TILE,
    plot_cut_outs,
    plot_gains,
    plot_trips,
)
from serial_lora_course.lessons.l05_sam.figures import (
    plot_shares as plot_costs,
)
from serial_lora_course.lessons.l06_sd3.figures import TESTS, plot_sheets, plot_ways
from serial_lora_course.lessons.l07_lora_plus.figures import (
    plot_catching_up,
    plot_draws,
    plot_opponents,
    plot_steps,
)
from serial_lora_course.lessons.l08_how_sure.figures import (
    plot_false_positives,
    plot_intervals,
    plot_margins,
    plot_price,
    plot_shapes,
    plot_studies,
)
from serial_lora_course.lessons.l11_many.figures import (
    plot_serving,
    plot_table,
    plot_verdict,
    plot_weights,
)
from serial_lora_course.lessons.l12_your_own.figures import plot_leads, plot_shares, with_recorded
from serial_lora_course.lessons.l13_not_learning.figures import (
    apart_by,
    plot_curves,
    plot_found,
    plot_moved,
    plot_rounded,
)
from tests.models.sam_models import example, small_sam


def test_curves_are_each_step_and_the_mean_over_a_sixth_of_the_run():
    axes = plot_curves({1: range(12), 2: [2, 4] * 6}, chance=1.5, apart=[2]).axes
    step, mean, chance = (list(line.get_ydata()) for line in axes[0].lines)
    assert step == list(range(12)) and mean == pytest.approx(np.arange(0.5, 11))
    assert chance == [1.5, 1.5] and len(axes[1].lines) == 2
    first, *_ = plot_curves({1: [3.0] * 12}, fixed={1: [1.0] * 12}).axes
    assert len(first.lines) == 4 and [t.get_text() for t in first.texts][:2] == ["3.00", "1.00"]
    low, high = apart_by(0.5, [1.1, 1.0])[::-1]
    assert high - low == pytest.approx(0.5) and apart_by(0.5, [1.0]) == [1.0]


def test_a_mark_shows_how_far_a_tensor_moved_or_why_it_did_not():
    found = {"a.lora_A": (1.0, 0.75), "a.lora_B": (0.0, 0.0), "bias": (0.0, 0.0)}
    (axes,) = plot_moved({"run": (found, {"bias"}, 0.5)}).axes
    moved, still, lost = axes.lines[:3]
    assert moved.get_xdata()[0] == 0.75 and moved.get_markerfacecolor() != "white"
    assert still.get_markerfacecolor() == "white" and lost.get_marker() == "x"
    assert still.get_xdata()[0] == lost.get_xdata()[0] < 0.75
    assert "50%" in [text.get_text() for text in axes.texts]


def test_weights_are_counted_by_their_size():
    size = torch.tensor([0.001, 0.002, 0.1, 0.2])
    (axes,) = plot_rounded(size, size < 0.01, 0.01).axes
    moved, all_of_them = (sum(bar.get_height() for bar in bars) for bars in axes.containers)
    assert moved == all_of_them == 2


def test_an_answer_that_shows_a_fault_stands_in_its_cell():
    fine, groups = {"loss": ("2.8", True), "held": ("a 1, b 2", True)}, {"all": ["loss", "held"]}
    runs, rules = {"healthy": fine, 3: fine | {"loss": ("4.7", False)}}, dict.fromkeys(fine, "all")
    (axes,) = plot_found(runs, groups, rules=rules).axes
    assert axes.collections[0].get_array().astype(int).tolist() == [[0, 0], [1, 0]]
    said = ["2.8", "a 1\nb 2", "4.7", "a 1\nb 2"]
    assert [text.get_text() for text in axes.texts][:4] == said
    assert len({text.get_color() for text in axes.texts[:4]}) == 2  # the last is pale


def test_each_dot_is_a_score_before_and_after_the_merge():
    scores = {
        "yours": (torch.rand(3, 2), torch.rand(3, 2)),
        "theirs": (torch.rand(4), torch.rand(4)),
    }
    figure = plot_agreement(scores)
    for axes, pair in zip(figure.axes, scores.values(), strict=True):
        dots = torch.tensor(axes.collections[0].get_offsets().data)
        assert torch.allclose(dots.T.float(), torch.stack([each.flatten() for each in pair]))


WIRINGS = {
    "in front": (Wired(in_front), {"3"}),
    "on the stream": (Wired(on_the_stream), {"1"}),
    "one each": (Wired(one_each, 3), {"q", "k", "v"}),
    "before the norm": (Wired(lambda b, p, x: x + b.attention(b.norm(p(x)))), {"2"}),
    "behind attention": (Wired(lambda b, p, x: x + p(b.attention(b.norm(x)))), {"5"}),
    "behind the sum": (Wired(lambda b, p, x: p(b(x))), {"6"}),
    "q alone": (
        Wired(lambda b, p, x: x + b.attend(b.q(p(b.norm(x))), b.k(b.norm(x)), b.v(b.norm(x)))),
        {"q"},
    ),
    "past attention": (Wired(lambda b, p, x: p(x) + b.attention(b.norm(x))), {ELSEWHERE}),
    "not at all": (Wired(lambda b, _, x: b(x)), set()),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_a_pair_is_found_where_a_run_calls_it(name):
    adapted, expected = WIRINGS[name]
    before = {key: value.clone() for key, value in adapted.state_dict().items()}
    assert places_of(adapted, torch.randn(2, 4, 8)) == expected
    assert all(torch.equal(value, before[key]) for key, value in adapted.state_dict().items())


def test_blocks_are_drawn_with_their_pairs_and_with_what_was_found():
    said = {"one": True, "other": False, "a number": None}
    figure = plot_wirings(
        {name: (adapted, said) for name, (adapted, _) in WIRINGS.items()}, torch.randn(2, 4, 8)
    )
    for axes, (name, (_, places)) in zip(figure.axes, WIRINGS.items(), strict=True):
        words = [text.get_text() for text in axes.texts]
        assert words[words.index("one") - 1] == "✓" and words[words.index("other") - 1] == "✗"
        assert words[words.index("a number") - 1] == "other"
        orange = [line for line in axes.lines if line.get_color() == VERMILION]
        assert bool(orange) == bool(places - {ELSEWHERE})
        assert axes.get_title("left") == name


def test_outcomes_are_counted_by_class():
    pictures = [Image.new("RGB", (8, 8))] * 3
    said = [0, 1, 0], [1, 1, 1]  # lost, wrong both times, gained
    (axes,) = plot_outcomes(pictures, [0, 0, 1], *said, ["a", "b"], trained=[3, 0]).axes
    said = [label.get_text() for label in axes.get_yticklabels()]
    assert said == [
        "a\ntrained on 3\n1 right, then 0 of 2",
        "b\ntrained on 0\n0 right, then 1 of 1",
    ]


def test_classes_left_out_stand_last():
    pictures = [Image.new("RGB", (8, 8))] * 2
    (axes,) = plot_outcomes(pictures, [0, 1], [0, 1], [0, 1], ["a", "b"], trained=[0, 2]).axes
    assert [label.get_text()[0] for label in axes.get_yticklabels()] == ["b", "a"]


def test_what_was_lost_lies_left_and_what_was_gained_right():
    runs = {"one": {"a": [(1, 4), (2, 0)]}, "two": {"a": [(3, 2), None]}}
    figure = plot_pairs(runs, {"one": [[True, False], [False]]}, ["named", "found"])
    for axes, widths in zip(figure.axes, ([-1, -3, 4, 2], [-2, 0]), strict=True):
        assert [round(bar.get_width()) for bar in axes.patches] == widths
        middles = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
        assert middles == ([1, 3] * 2 if len(widths) == 4 else [1, 1])
    told = [text.get_text() for text in figure.axes[1].texts]
    assert [text for text in told if len(text) > 1] == ["before: 0 of 1", "no names for these"]
    titles = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert titles == ["one", "a", "two", "a"]


def test_each_photograph_is_a_dot_at_its_margin_and_the_means_of_each_outcome_are_told():
    numbers = torch.tensor([0.1, 0.3, -0.2]), torch.tensor([0.5, 0.25, 0.125])
    was, now, out = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 1, 0]]).bool()
    figure = plot_turns(*numbers, was, now, out, {"crow": 2})
    dots = [tuple(dot) for drawn in figure.axes[0].collections for dot in drawn.get_offsets()]
    assert sorted(dots) == sorted(zip(*(each.tolist() for each in numbers), strict=True))
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert "lost (2): margin 0.20, turned 0.38" in labels


def test_each_run_is_a_dot_with_a_line_through_the_medians_and_tokens_that_stay_are_on_the_line():
    ends = {"LoRA": {0.02: [2.0, 9.0, 4.0], 0.04: [1.0]}, "even": {0.02: [1.0], 0.04: [3.0]}}
    (axes,) = plot_ends(ends).axes
    dots = [dot[1] for drawn in axes.collections for dot in drawn.get_offsets().tolist()]
    assert dots == [2, 9, 4, 1, 1, 1, 3, 1]  # a way's dots, then its ring
    assert [[*line.get_ydata()] for line in axes.lines] == [[4, 1], [1, 3]]
    left, right = plot_spreads({"even": 5.0}, ends).axes
    assert [[*line.get_ydata()] for line in left.lines] == [[1, 3]]
    assert right.collections[0].get_offsets().tolist() == [[5, 1]]
    assert [*right.lines[1].get_ydata()] == [1, 1]
    curves = {"Missed": {"LoRA": [1, 0.5]}, "Loss": {"LoRA": [2, 1]}}
    for axes, each in zip(plot_over_rank([1, 2], curves, {}).axes, curves.values(), strict=True):
        assert [[*line.get_ydata()] for line in axes.lines] == [each["LoRA"]]
    x = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    moved = x + x @ torch.tensor([[0.0, 0], [0, 2]])
    panel, *_ = plot_token_moves({"LoRA": {"q": (x, moved)}, "Serial LoRA": {"q": (x, moved)}}).axes
    assert np.allclose(panel.lines[0].get_ydata(), 0)


def test_what_a_block_keeps_is_drawn_end_to_end_with_the_total_that_was_counted():
    parts = {"norms": 2.0, "attention": 4.0, "activation": 8.0, "inputs": 6.0, "between": 0.0}
    bars = {"all": parts, "pairs": parts | {"inputs": 1.0, "between": 0.25}}
    (axes,) = plot_kept(bars, {"all": 20.0, "pairs": 15.25}, guess=17).axes
    drawn = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    ends = [(14, 6), (14, 1), (20, 0), (15, 0.25)]
    assert drawn == [(0, 2)] * 2 + [(2, 4)] * 2 + [(6, 8)] * 2 + ends
    texts = {text.get_text() for text in axes.texts}
    assert {"  20.00", "  15.25", "0.25 between", "your guess: 17"} <= texts
    assert axes.lines[0].get_xdata().tolist() == [17]


@pytest.mark.parametrize("guess", [None, 0.5])
def test_the_memory_of_a_step_is_its_parts_beside_what_was_measured_and_guessed(guess):
    sizes = {
        "all": (2, 9, 9, 5, 24),
        "LoRA, rank 32": (1, 8, 1, 2, 11.5),
        "Serial LoRA, rank 32": (0.5, 7, 1, 1, 9),
    }
    columns = ["file", "weights", "pairs", "kept", "measured"]
    table = pd.DataFrame.from_dict(sizes, "index", columns=columns)
    file, one, many = plot_memory(table, 8, guess).axes
    for axes, widths in (
        (file, [0, 0, 0, 2, 1, 0.5, 0, 0, 0]),
        (one, [9, 8, 7, 9, 1, 1, 5, 2, 1]),
        (many, [9, 8, 7, 9, 1, 1, 40, 16, 8]),
    ):
        assert [bar.get_width() for bar in axes.patches] == widths
    assert one.lines[0].get_xydata().tolist() == [[24, 0], [11.5, 1], [9, 2]]
    guesses = [line.get_xydata().tolist() for line in many.lines]
    assert guesses == ([] if guess is None else [[[12.5, 2]]])
    assert "16.0 MB (-36.0%)" in [text.get_text() for text in many.texts]


def test_a_curve_over_the_weight_has_its_counts_and_its_distance_to_the_one_before():
    some = [torch.arange(9).reshape(1, 9) < count for count in (2, 7, 4)]
    curves = {"own": {"0": some[0], "1": some[1]}, "sum": {"0": some[0], "1": some[2]}}
    figure = plot_weights([0, 1], curves)
    drawn = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert [2, 7] in drawn
    assert [2, 4] in drawn
    half = 1.96 * np.sqrt(9 * np.var([0] * 6 + [1] * 3, ddof=1))
    assert f"sum: at 0 2 (+0), at 1 4 (-3 ± {half:.0f})" in figure.alt_text
    assert "own: at 0 2, at 1 7" in figure.alt_text


def test_costs_are_a_line_a_way_and_a_verdict_is_a_bar_a_way():
    ms = {way: {1: 2, 8: i} for i, way in enumerate("abcd")}
    figure = plot_serving(ms, {way: {1: 5, 8: 6} for way in ms})
    assert [2, 3] in [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert "b: 1: 2.0 ms, 5 MB, 8: 1.0 ms, 6 MB" in figure.alt_text
    own = torch.ones(2, 4, dtype=bool)
    panels = plot_verdict({"a": (own, 2, 10), "b": (~own, 1, 30)}, own, ["b"]).axes
    assert [[bar.get_width() for bar in axes.patches] for axes in panels] == [
        [8, 0],
        [2, 1],
        [10, 30],
    ]


def test_means_are_lines_and_leads_are_dots_a_data_set_and_a_mean_with_its_interval():
    chance = np.random.default_rng(2)
    index = pd.MultiIndex.from_product([(1, 4, 16), list("abc"), (1, 2)])
    table = pd.DataFrame(
        chance.integers(30, 44, (18, 3)).astype(float),
        index.set_names(["shots", "dataset", "seed"]),
        ["LoRA", "zero-shot", "Serial LoRA"],
    )
    curve, *panels = plot_ahead(table, "zero-shot", ["LoRA", "Serial LoRA"]).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in curve.lines}
    for name, column in table.items():
        assert drawn[name] == pytest.approx([column.loc[shots].mean() for shots in (1, 4, 16)])
    rows = [tick.get_text() for tick in panels[0].get_yticklabels()][1:]
    for axes, shots in zip(panels, (1, 16), strict=True):
        dots = [line for line in axes.lines if len(line.get_xdata()) == len(rows)]
        for line, bar, name in zip(dots, axes.containers, ("LoRA", "Serial LoRA"), strict=True):
            lead = (table[name] - table["zero-shot"]).loc[shots].groupby("dataset").mean()
            assert list(line.get_xdata()) == pytest.approx(list(lead[rows]))
            wide = stats.ttest_1samp(lead, 0).confidence_interval(0.95)
            assert bar.lines[2][0].get_segments()[0][:, 0] == pytest.approx([wide.low, wide.high])


def test_losses_are_a_panel_for_each_number_of_shots():
    losses = {(16, "LoRA"): [2.0, 1.0, 0.5], (1, "LoRA"): [2.1, 1.5], (1, "Serial LoRA"): [2.1, 1]}
    figure = plot_losses(losses)
    drawn = [[list(line.get_ydata()) for line in axes.lines] for axes in figure.axes]
    assert drawn == [[[2.1, 1.5], [2.1, 1]], [[2.0, 1.0, 0.5]]]
    assert "LoRA, 16-shot: first loss 2.00, last 0.50" in figure.alt_text


def test_a_probes_curve_and_its_chosen_strength_are_drawn():
    curves = {(1, "probe from zero"): [3, 4, 5], (16, "probe from zero"): [9, 8, 6]}
    best = {(1, "probe from zero"): 10, (16, "probe from zero"): 1}
    figure = plot_pull(curves, best, [1, 3, 10], 4, 9)
    told = zip(figure.axes, curves.values(), ((10, 5), (1, 9)), strict=True)
    for axes, line, dot in told:
        zero, drawn, chosen = axes.lines
        assert set(zero.get_ydata()) == {4}
        assert list(drawn.get_ydata()) == line
        assert (chosen.get_xdata()[0], chosen.get_ydata()[0]) == dot


def test_a_gain_on_unseen_kinds_is_a_dot_a_data_set_and_a_mean_with_its_interval():
    gains = {"a": [100, -50, 0, 50], "b": [-100, 0, 0, -20]}
    rows = {
        ("Serial LoRA", s, i): float(v) for s, each in gains.items() for i, v in enumerate(each)
    }
    changes = pd.Series(rows).rename_axis(["method", "dataset", "picture"])
    (axes,) = plot_unseen(changes).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()][1:] == ["b", "a"]  # the worst first
    drawn = [
        (each.lines[0].get_xdata()[0], each.lines[2][0].get_segments()[0][:, 0])
        for each in axes.containers
    ]
    wide = stats.ttest_1samp([25, -30], 0).confidence_interval(0.95)
    assert drawn[0][0] == -2.5
    assert drawn[0][1] == pytest.approx([wide.low, wide.high])
    for (mean, ends), each in zip(drawn[1:], (gains["b"], gains["a"]), strict=True):
        half = 2 * np.std(each, ddof=1) / 2
        assert mean == np.mean(each)
        assert ends == pytest.approx([mean - half, mean + half])


def test_a_table_of_cosines_has_a_dot_on_the_largest_of_each_row():
    pictures = [Image.new("RGB", (8, 8))] * 2
    axes = show_cosines(pictures, ["a", "b"], [[0.1, 0.3], [-0.2, 0.4]]).axes[1]
    assert [line.get_xdata()[0] for line in axes.lines] == [1, 1]
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.30", "-0.20", "0.40"]


def test_disputed_pictures_are_those_that_one_alone_has_right():
    pictures = load_classification("symbols").test
    truth = list(pictures.labels)
    wrong = [(label + 1) % 8 for label in truth]
    answers = {"A": wrong[:1] + truth[1:], "B": truth[:2] + wrong[2:3] + truth[3:]}
    figure = show_disputed(load_classification("symbols"), answers)
    titles = [title for axes in figure.axes if (title := axes.get_title())]
    assert [[line.endswith("✓") for line in each.splitlines()] for each in titles] == [
        [True, False],
        [False, True],
    ]


def test_each_scene_is_a_dot_and_the_best_threshold_is_marked():
    before, after = np.random.default_rng(0).uniform(0, 1, (2, 9))
    curves = {"not adapted": [0.1, 0.2, 0.3], "Serial LoRA": [0.2, 0.4, 0.1]}
    scores = dict(zip(curves, (before, after), strict=True))
    left, right = plot_gains(scores, curves, [-1, 0, 1], 0.5).axes
    drawn = sorted(pair for dots in left.collections for pair in dots.get_offsets().tolist())
    assert np.allclose(drawn, sorted(zip(before, after, strict=True)))
    assert [list(line.get_ydata()) for line in right.lines[:2]] == list(curves.values())
    assert right.collections[0].get_offsets().tolist() == [[1, 0.3]]


def test_a_mistakes_costs_stand_over_its_share_up_to_what_right_training_reaches():
    shares = {"moved by 1": 0.1, "moved by 1, always right": 0.1, "a mistake": 0.6}
    stored = {name: np.full((2, 3), share) for name, share in shares.items()}
    parts = {
        f"moved by 1, always right, only {part}": np.full((2, 3), 0.3) for part in ("in", "out")
    }
    parts["a mistake, uneven"] = np.full((2, 3), 0.7)
    (axes,) = plot_costs(shares, {"a mistake": (0.2, 0.5)}, stored | parts, 0.4, 0.8).axes
    dots = [dots.get_offsets().tolist() for dots in axes.collections]
    assert dots.count([[0.1, 0.3]] * 2) == 2 and [[1, 0.7]] in dots
    curve, used, weights = axes.lines[2:5]
    assert curve.get_xydata().tolist() == [[1, 0.8], [0.1, 0.1]]
    assert used.get_xydata().tolist() == [[0.6, 0.2], [0.6, 0.5]]
    assert weights.get_xydata().tolist() == [[0.6, 0.5], [0.6, 0.8]]


def test_a_trips_row_shows_the_square_with_its_padding_and_what_comes_back():
    model, scene = small_sam(), example((60, 80))
    there, back = partial(prepare, image_size=model.image_encoder.img_size), model.postprocess_masks
    rows = plot_trips(model, scene, {"right": (there, back)}, {"right": scene.masks}).axes
    square, answer, arrived, perfect = (np.asarray(axes.images[0].get_array()) for axes in rows[:4])
    assert square.shape == answer.shape == (model.image_encoder.img_size,) * 2 + (3,)
    assert arrived.shape == perfect.shape == (*scene.masks.shape[1:], 3)
    assert len(rows[0].patches) == 2 * len(scene.boxes)
    assert rows[3].get_xlabel() == "Dice 1.00"


def test_a_cut_out_is_what_a_mask_marks_on_grey():
    left, right = np.zeros((2, 1, 20, 30), bool)
    left[..., :12], right[..., 12:] = True, True
    scenes = [
        SegmentationExample(Image.new("RGB", (30, 20), colour), left | right, ("a thing",), colour)
        for colour in ("blue", "red")
    ]
    figure = plot_cut_outs(scenes, {"A": [left, right], "B": [right, left]}, order=[1, 0])
    for axes, marked in zip(figure.axes[1:], ("right", "left"), strict=True):
        sheet = np.asarray(axes.images[0].get_array())[TILE // 2]
        seen = ["left" if tuple(sheet[TILE // 4]) == (255, 0, 0) else "right"]
        assert seen == [marked]
        assert tuple(sheet[TILE + (TILE // 4 if marked == "right" else 3 * TILE // 4)]) == (
            0,
            0,
            255,
        )
        unmarked = sheet[TILE // 4 if marked == "right" else 3 * TILE // 4]
        assert tuple(unmarked) == getrgb(PAPER)


def test_each_draw_is_a_mark_at_its_case_and_a_line_goes_through_the_means():
    cases = {"one": {"probe": torch.rand(4, 8)}, "other": {"probe": torch.rand(4, 8)}}
    (axes,) = plot_shares([cases], 0.75).axes
    marks = torch.tensor([dots.get_offsets()[0].tolist() for dots in axes.collections])
    shares = 100 * torch.stack([ways["probe"].mean(1) for ways in cases.values()])
    assert torch.allclose(marks[:, 1].float(), shares.flatten())
    assert marks[:, 0].round().tolist() == [0] * 4 + [1] * 4
    assert axes.lines[0].get_ydata() == pytest.approx(shares.mean(1).tolist(), rel=1e-5)
    assert axes.lines[1].get_ydata()[0] == 75


def test_a_lead_is_a_mark_for_each_draw_beside_zero():
    leads = {case: {"adapter - probe": [(5, 2), (-1, 3), (0, 1), (2, 2)]} for case in ("a", "b")}
    for axes in plot_leads(leads).axes:
        marks = [bars[0].get_xdata()[0] for bars in axes.containers]
        assert marks == [5, -1, 0, 2] and axes.lines[-1].get_xdata()[0] == 0


def test_recorded_draws_follow_the_first():
    alone, first = with_recorded("fitted, touching on wood"), torch.zeros(90)
    assert {way: [len(e) for e in each] for way, each in alone.items()} == {
        way: [90] * 4 for way in ("probe", "adapter")
    }
    mine = with_recorded("cutting out", {"adapter": first})["adapter"]
    assert len(mine) == 4 and mine[0].equal(first)


def test_counts_of_drawings_are_dots_round_their_mean_as_of_forty():
    runs = pd.DataFrame(
        [(40, 0, "words", 31, 23, 20), (40, 9, "words", 34, 20, 19), (80, 0, "words", 60, 38, 31)],
        columns=["prompts", "noise", "way", *TESTS],
    )
    left, right = plot_ways(runs).axes
    dots, mean = (each.get_offsets().tolist() for each in left.collections)
    assert dots == [[31, 23], [34, 20]] and mean == [[32.5, 21.5]]
    assert right.collections[0].get_offsets().tolist() == [[30, 19]]
    assert [axes.texts[0].get_text() for axes in (left, right)] == ["words: 19.5", "words: 15.5"]


def test_under_a_drawing_stands_what_it_fails():
    black = np.zeros((6, 1, 1, 3), np.uint8)
    judged = pd.DataFrame({"name": [True] * 5 + [False], "hers": [True] * 4 + [False] * 2})
    judged["both"] = judged["name"] & judged["hers"]
    (axes,) = plot_sheets({"way": (black, judged)}).axes
    assert [each.get_text() for each in axes.texts] == [""] * 4 + ["✗ hers", "✗ name  ✗ hers"]
    assert axes.images[0].get_array()[2, :, 0].tolist() == [0] + [255] * 4
    assert axes.get_title(loc="left") == "way: 4 of 6"


def test_steps_and_the_rates_at_which_they_are_equal_are_drawn_as_they_are():
    panels = {"one": {"A": [0.0, 2.0], "B": [1.0, 3.0]}, "two": {"A": [4.0], "B": [5.0]}}
    for shared, steps in ((None, [1, 2]), ("moves", [2])):
        first, _ = plot_steps(panels, shared).axes
        assert [[*line.get_xdata()] for line in first.lines] == [steps, [1, 2]]
    (axes,) = plot_catching_up([64, 96], [1, 3], (80, 0.5, 2)).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 3], [2], [0.5]]
    (axes,) = plot_draws([-1.0, 1.0, 1.0], 16.0).axes
    assert sum(bar.get_height() for bar in axes.patches) == 3


def test_a_table_frames_a_customers_own_adapter_and_colours_what_is_beyond_luck():
    hits = {
        row: torch.stack([torch.arange(9) < i + 2 * j for j in range(2)])
        for i, row in enumerate("-ab")
    }
    hits["a"][1] = torch.arange(9) < 8
    figure = plot_table(hits, "ab", "right")
    (axes,) = figure.axes
    told = [text.get_text() for text in axes.texts]
    assert told == ["0", "2", "1", "+1 ± 2", "8", "+6 ± 3", "2", "+2 ± 3", "4", "+2 ± 3"]
    assert axes.images[0].get_array().tolist() == [[0, 0], [0, 6], [0, 0]]  # beyond its interval
    assert [patch.get_xy()[1] > 1 for patch in axes.patches] == [False, True]
    assert "b: 2 (+2 ± 3), 4 (+2 ± 3)" in figure.alt_text


def test_runs_stand_over_each_rate_and_each_has_another_opponent():
    shares = {(a, b): [a / 800, b / 800] for a, b in ((1, 1), (10, 10), (100, 100), (1, 100))}
    figure = plot_opponents(shares, (1, 100), 0.5)
    assert [[*axes.lines[0].get_xdata().round(9)] for axes in figure.axes] == [[1, 10, 100]] * 3
    assert [[*axes.lines[1].get_xdata().round(9)] for axes in figure.axes] == [[1], [10], [100]]
    gains = [axes.get_title(loc="left").partition(": ")[2] for axes in figure.axes]
    assert gains == ["+6 points", "+5 points", "-6 points"]


def test_an_interval_is_drawn_alone_and_together_with_others():
    (axes,) = plot_intervals({"runs": (0.4, 0.2), "sets": (0.4, 0.5)}).axes
    ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in axes.containers]
    np.testing.assert_allclose(ends, [[0.2, 0.6], [-0.1, 0.9]])
    assert [text.get_text()[-7:] for text in axes.texts] == ["outside", " inside"]
    rivals = ("lora", "lora_equal_budget")
    judged = [("sam", rival, -0.4, 0.2, 0.3, 1.0, "holds", "behind") for rival in rivals]
    (axes,) = plot_margins(judged).axes
    (together,) = axes.containers[0].lines[2][0].get_segments()
    assert together[:, 0] == pytest.approx([-0.7, -0.1])
    assert any(np.allclose(line.get_xdata(), [-0.6, -0.2]) for line in axes.lines[1:])
    assert axes.patches[0].get_extents().x1 == pytest.approx(axes.transData.transform((-1, 0))[0])
    assert [text.get_text() for text in axes.texts[:2]] == ["comparable, and behind"] * 2


def test_false_positives_have_a_line_for_each_column_and_the_guess():
    rates = pd.DataFrame({"runs": [0.1, 0.6], "sets": [0.05, 0.04]}, index=[1, 30])
    shapes = {"runs": stats.norm(), "sets": stats.expon(-1)}
    for guess, lines in ((20, 4), (None, 3)):
        for figure in (plot_false_positives(rates, guess), plot_shapes(shapes, rates, guess)):
            axes = figure.axes[-1]
            assert len(axes.lines) == lines
            assert [list(line.get_ydata()) for line in axes.lines[1:3]] == [[10, 60], [5, 4]]


def test_studies_that_find_the_lead_are_counted_and_sets_drawn_by_lead():
    first, second = plot_studies({3: [(0.4, 0.5), (0.6, 0.1)], 6: [(0.4, 0.1)] * 2}, 0.4).axes
    assert "1 of 2" in first.get_title(loc="left")
    assert "2 of 2" in second.get_title(loc="left")
    assert list(first.lines[0].get_xdata()) == pytest.approx([-0.1, 0.9])
    curves = pd.DataFrame({"one question": [9, 5], "low": [5, 4], "high": [30, 20]}, [0.2, 0.4])
    for guess, lines in ((20, 5), (None, 4)):
        (axes,) = plot_price(curves.assign(**{"as one of six": [12, 7]}), 0.4, 6, guess).axes
        assert len(axes.lines) == lines
        assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[12, 7], [9, 5]]
