"""The panel of drawings: what it shows is what the lab draws, and the model never notices."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, disabled, inject, merge, set_scale
from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.sd3 import TINY, draw
from serial_lora_course.models.sd3 import Sd3Backbone
from serial_lora_course.panels import drawings as module
from serial_lora_course.panels.adapted import LARGEST_SCALE, STILL_SCALES
from serial_lora_course.panels.drawings import (
    STILL_GUIDANCES,
    DrawingPanel,
    DrawingsAtScales,
    drawing_panel,
)
from tests.models.sd3_models import small_backbone
from tests.panels.panel_probes import assert_untouched, fingerprint

FEW_STEPS = replace(TINY, drawing_steps=2)
PROMPTS = ["fox face", "key", "rocket"]


@pytest.fixture(scope="module")
def plain() -> Sd3Backbone:
    """Without adapters, and nobody gives it any: building one takes longer than copying it."""
    return small_backbone()


def with_transformer(backbone, transformer) -> Sd3Backbone:
    """The same pipeline around another transformer."""
    pipeline = copy.copy(backbone.pipeline)
    pipeline.transformer = transformer
    return replace(backbone, model=transformer, pipeline=pipeline)


def adapted(plain, config=None) -> Sd3Backbone:
    """One of the test's own, with adapters that change the drawing."""
    transformer = copy.deepcopy(plain.model)
    torch.manual_seed(1)
    inject(transformer, config or SerialLoRAConfig(rank=4))
    for adapter in adapters(transformer).values():
        torch.nn.init.normal_(adapter.lora_B, std=0.5)
    return with_transformer(plain, transformer)


def lab_drawing(backbone, prompt, seed=0, guidance=TINY.guidance) -> np.ndarray:
    """What the lab draws with the model as it is."""
    steps, side = FEW_STEPS.drawing_steps, FEW_STEPS.resolution
    return draw(backbone, [prompt], [seed], steps, guidance, side)[0]


@pytest.fixture
def backbone(plain) -> Sd3Backbone:
    return adapted(plain)


@pytest.fixture
def panel(backbone, capture_display) -> DrawingPanel:
    return DrawingPanel(backbone, PROMPTS, config=FEW_STEPS)


class Brightness:
    """A judge whose score anybody can compute: brightness, and the prompt's length."""

    def clip_scores(self, pictures, captions) -> torch.Tensor:
        pairs = zip(pictures, captions, strict=True)
        return torch.tensor([float(p.mean()) / 255 + len(caption) for p, caption in pairs])


def count_drawings(monkeypatch) -> list[tuple]:
    """Grows by one with each drawing that is made and not remembered."""
    made = []

    def counting(backbone, prompts, seeds, steps, guidance, *rest):
        made.append((*seeds, guidance))
        return draw(backbone, prompts, seeds, steps, guidance, *rest)

    monkeypatch.setattr(module, "draw", counting)
    return made


# ----------------------------------------------------------------------------- the drawings


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from([SerialLoRAConfig, LoRAConfig]),
    scale=st.floats(0, LARGEST_SCALE),
    guidance=st.sampled_from([1.0, 2.5, 9.0]),
    seed=st.integers(0, 2**31 - 1),
    prompt=st.sampled_from([*PROMPTS, "", "a fox, a key and a rocket"]),
)
def test_every_setting_gives_the_drawing_of_the_lab(plain, kind, scale, guidance, seed, prompt):
    backbone = adapted(plain, kind(rank=2))
    drawings = DrawingsAtScales(backbone, FEW_STEPS)
    without, after = (drawings.find(prompt, seed, s, guidance) for s in (None, scale))
    with disabled(backbone.model):
        assert np.array_equal(without, lab_drawing(backbone, prompt, seed, guidance))
    set_scale(backbone.model, scale)
    assert np.array_equal(after, lab_drawing(backbone, prompt, seed, guidance))


def test_scale_0_is_the_unadapted_model_bit_for_bit_and_the_panel_says_so(panel, plain):
    assert "identical" not in panel.status.message
    panel.scale.value = 0
    expected = lab_drawing(plain, "fox face")
    for drawn in panel.drawer.result:
        assert np.array_equal(drawn, expected)
    assert "identical" in panel.status.message


def test_each_control_counts_and_nothing_is_drawn_twice(panel, monkeypatch):
    made = count_drawings(monkeypatch)
    panel.scale.value = 0.5
    assert made == [(0, 3.0)]  # the drawing without the adapter is there already
    panel.scale.value = 1
    panel.guidance.value = 5
    panel.guidance.value = 3
    panel.scale.value = 0.5
    assert made == [(0, 3.0), (0, 5.0), (0, 5.0)]
    panel.seed.value = 7
    panel.prompt.value = "key"
    panel.drawer.update()
    assert made[3:] == [(7, 3.0)] * 4


# ------------------------------------------------------------------- the learner's own model


@pytest.fixture
def unusual(plain) -> Sd3Backbone:
    """A model in the midst of something: training in part, its adapters at different scales."""
    backbone = adapted(plain, SerialLoRAConfig(rank=4, scale=0.7, dropout=0.5))
    backbone.model.transformer_blocks[1].train()
    next(iter(adapters(backbone.model).values())).scale = 0.3
    return backbone


def test_a_drawing_that_fails_says_so_and_leaves_the_model_as_it_was(
    unusual, monkeypatch, capture_display
):
    def fail(*_, **__):
        raise RuntimeError("no memory left")

    panel = DrawingPanel(unusual, PROMPTS, config=FEW_STEPS)
    before = fingerprint(unusual.model)
    with monkeypatch.context() as patch:
        patch.setattr(unusual.pipeline.vae, "decode", fail)
        panel.scale.value = 0.2
    assert_untouched(unusual.model, before)
    assert "no memory left" in panel.status.message and panel.drawer.result is None
    panel.drawer.update()
    assert panel.drawer.result is not None and "no memory" not in panel.status.message


# ------------------------------------------------------------------------- what is said of it


def test_a_prompt_that_is_too_long_is_told_in_the_panel_alone(panel, capfd, caplog):
    panel.prompt.value = "fox " * 60
    assert "Only its first 16 tokens are read" in panel.status.message
    assert len(panel.status.message) < 200
    out, err = capfd.readouterr()
    assert "token" not in out + err and not caplog.records
    panel.prompt.value = "fox"
    assert "tokens" not in panel.status.message


# -------------------------------------------------------------------------- when it draws


def test_at_paper_scale_it_waits_for_the_button(backbone, capture_display):
    panel = DrawingPanel(replace(backbone, scale="paper"), PROMPTS, config=FEW_STEPS)
    panel.scale.value = 0.5
    assert panel.drawer.result is None and "Press Draw" in panel.status.message
    panel.drawer.manual_button.click()
    set_scale(backbone.model, 0.5)
    assert np.array_equal(panel.drawer.result[1], lab_drawing(backbone, "fox face"))


# ------------------------------------------------------------------------------- shown, or not


def test_the_still_form_shows_what_the_sliders_would(backbone, monkeypatch, capture_display):
    shown = []
    plot = module.plot_drawings
    monkeypatch.setattr(
        module, "plot_drawings", lambda *given: shown.append(given[0]) or plot(*given)
    )
    judge = Brightness()
    assert drawing_panel(backbone, PROMPTS, 6, judge, FEW_STEPS) is None
    ((rows),) = shown
    assert list(rows) == [f"guidance {guidance:g}" for guidance in STILL_GUIDANCES]
    for guidance, row in zip(STILL_GUIDANCES, rows.values(), strict=True):
        for scale, picture in zip(STILL_SCALES, row, strict=True):
            set_scale(backbone.model, scale)
            expected = lab_drawing(backbone, "fox face", 6, guidance)
            assert np.array_equal(picture, expected)
    (alt,) = [data["text/plain"] for data in capture_display if "<img " in str(data)]
    assert "“fox face”, seed 6." in alt and "guidance 7" in alt and "“scale 1.5”" in alt
    (table,) = [data for data in capture_display if "| CLIP-Score |" in str(data)]
    lines = [line.strip("| ").split(" | ") for line in table["text/markdown"].splitlines()]
    assert lines[0][1:] == ["scale 0: not adapted", "scale 0.5", "scale 1", "scale 1.5"]
    for line, (name, row) in zip(lines[2:], rows.items(), strict=True):
        assert line == [name, *(f"{8 + picture.mean() / 255:.2f}" for picture in row)]
    assert not any("widget-view" in kind for data in capture_display for kind in data)


# ------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("static", "10")
def test_what_cannot_be_shown_is_refused_in_a_sentence(
    static, monkeypatch, capture_display, plain, backbone
):
    monkeypatch.setenv("SERIAL_LORA_STATIC", static)
    merged = merge(copy.deepcopy(backbone.model))
    for model, prompts, words in (
        (backbone, [], "no prompts"),
        (backbone, ["key", 3], "pass texts"),
        (backbone.pipeline, ["key"], "StableDiffusion3Pipeline is no SD3 backbone"),
        (plain, ["key"], "no adapters"),
        (with_transformer(backbone, merged), ["key"], "merged"),
    ):
        with pytest.raises(SerialLoRAError, match=words) as refused:
            drawing_panel(model, prompts, config=FEW_STEPS)
        assert str(refused.value).count(".") <= 2 and str(refused.value).endswith(".")
    assert capture_display == []
