"""The panel of masks: what it shows is what the lab computes, and the model never notices."""

import base64
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    adapters,
    disabled,
    eject,
    inject,
    merge,
    set_scale,
)
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.segmentation import SegmentationExample
from serial_lora_course.figures.masks import overlay
from serial_lora_course.figures.pictures import as_array
from serial_lora_course.labs.sam import predict_masks
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.panels.masks import (
    ASSETS,
    CURVE_SCALES,
    LARGEST_SCALE,
    SHOWN,
    BoxPicker,
    MaskPanel,
    MasksAtScales,
    as_scenes,
    borrowed,
    dice_by_scale,
    mask_panel,
    tidy_box,
)
from tests.models.sam_models import adapted_sam, example, small_sam  # noqa: E402


def backbone_of(model) -> SamBackbone:
    return SamBackbone(model, "small", "tiny")


@pytest.fixture
def backbone() -> SamBackbone:
    return backbone_of(adapted_sam())


@pytest.fixture
def panel(backbone) -> MaskPanel:
    return MaskPanel(backbone, [example(), example((29, 37), 3, seed=1), example().picture])


def encodings(model) -> list[int]:
    """Grows by one number, the pictures at once, each time the image encoder runs."""
    seen = []
    model.image_encoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    return seen


def slow_dice(found, truth) -> float:
    """Dice by a loop over pixels."""
    both = sum(bool(f and t) for f, t in zip(found.flat, truth.flat, strict=True))
    area = sum(map(bool, found.flat)) + sum(map(bool, truth.flat))
    return 2 * both / area if area else 1.0


def shown_picture(html: str) -> np.ndarray:
    source = re.search(r"src='data:image/png;base64,([^']+)'", html).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))


def shown_words(html: str) -> str:
    return unescape(re.search(r"<figcaption[^>]*>([^<]*)<", html).group(1))


# -------------------------------------------------------------------------------- the masks


def test_a_box_too_thin_for_the_models_numbers_is_none():
    assert tidy_box((0, 0, 1e-60, 5), (37, 29)) is None
    assert tidy_box((36.999999999, 3, 40, 5), (37, 29)) is None
    assert tidy_box((0, 0, 1e-30, 5), (37, 29)) is not None


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_box_and_scale_gives_the_masks_of_the_lab(data):
    width, height = data.draw(st.sampled_from([(37, 29), (29, 37), (51, 80), (97, 41)]))
    kind = data.draw(st.sampled_from([SerialLoRAConfig, LoRAConfig]))
    scale = data.draw(st.floats(0, LARGEST_SCALE))
    edges = [data.draw(st.floats(0, limit)) for limit in (width, height, width, height)]
    box = tidy_box(edges, (width, height)) or (0, 0, width, height)
    backbone = backbone_of(adapted_sam(config=kind(rank=2)))
    (scene,) = as_scenes([example((width, height))])
    masks = MasksAtScales(backbone)
    without, after = (masks.find(scene, [box], s) for s in (None, scale))
    with disabled(backbone.model):
        assert np.array_equal(without, predict_masks(backbone, scene.picture, [box])[0])
    set_scale(backbone.model, scale)
    assert np.array_equal(after, predict_masks(backbone, scene.picture, [box])[0])


def test_the_masks_depend_on_the_box_the_scale_and_the_picture(panel):
    first = panel.found
    panel.picker.box = (2, 2, 12, 20)
    second = panel.found
    assert not np.array_equal(first[0], second[0])
    panel.scale.value = 1.5
    assert np.array_equal(panel.found[0], second[0])
    assert not np.array_equal(panel.found[1], second[1])
    panel.choice.value = 1
    assert panel.found[0].shape == (37, 29)


def test_scale_0_is_the_unadapted_model_bit_for_bit_and_the_panel_says_so(panel, backbone):
    plain = backbone_of(eject(copy.deepcopy(backbone.model)))
    assert "identical" not in panel.picker.message
    panel.scale.value = 0
    expected, _ = predict_masks(plain, panel.scene.picture, [panel.picker.box])
    for found in panel.found:
        assert np.array_equal(found, expected[0])
    assert "identical" in panel.picker.message
    assert np.array_equal(shown_picture(panel.before.value), shown_picture(panel.after.value))


def test_a_picture_is_encoded_once_for_each_scale_however_the_box_moves(panel, backbone):
    seen = encodings(backbone.model)
    for left in range(10):
        panel.picker.box = (left, 3, left + 12, 25)
    assert seen == []  # its first box had both embeddings made
    panel.scale.value = 0.5
    panel.scale.value = 1.0
    panel.scale.value = 0.5
    assert seen == [1]
    panel.choice.value = 1
    assert seen == [1, 1, 1]  # without the adapter, and at scale 0.5
    panel.choice.value = 0
    assert seen == [1, 1, 1]


def test_an_adapter_that_was_changed_or_exchanged_is_seen(panel, backbone):
    for adapter in adapters(backbone.model).values():
        adapter.lora_B.data.mul_(-3)
    panel.picker.box = (3, 3, 20, 20)
    expected, _ = predict_masks(backbone, panel.scene.picture, [panel.picker.box])
    assert np.array_equal(panel.found[1], expected[0])
    eject(backbone.model)
    inject(backbone.model, LoRAConfig(rank=2))  # as it begins, it changes nothing
    panel.picker.box = (3, 3, 20, 21)
    assert np.array_equal(*panel.found)


# ------------------------------------------------------------------- the learner's own model


def fingerprint(model) -> tuple:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scales = [adapter.scale for adapter in adapters(model).values()]
    enabled = [adapter.enabled for adapter in adapters(model).values()]
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    return tensors, scales, enabled, modes, gradients


def assert_untouched(model, before: tuple) -> None:
    now = fingerprint(model)
    assert now[1:] == before[1:]
    assert all(torch.equal(now[0][name], tensor) for name, tensor in before[0].items())


@pytest.fixture
def unusual() -> SamBackbone:
    """A model in the midst of something: training in part, its adapters at different scales."""
    model = adapted_sam(config=SerialLoRAConfig(rank=4, scale=0.7, dropout=0.5))
    model.image_encoder.blocks[1].train()
    next(iter(adapters(model).values())).scale = 0.3
    return backbone_of(model)


def test_the_model_is_as_it_was_after_the_panel_was_used(unusual):
    before = fingerprint(unusual.model)
    panel = MaskPanel(unusual, [example(), example((40, 40))])
    assert panel.scale.value == 0.7
    panel.scale.value = 1.2
    panel.picker.box = (1, 1, 9, 9)
    panel.choice.value = 1
    assert_untouched(unusual.model, before)
    mask_panel(unusual, [example()], static=True)
    assert_untouched(unusual.model, before)


@pytest.mark.parametrize("scale", [None, 0.0, 1.5])
def test_the_model_is_as_it_was_after_an_error_too(unusual, scale):
    before = fingerprint(unusual.model)
    with pytest.raises(KeyboardInterrupt):
        with borrowed(unusual.model, scale):
            assert not any(module.training for module in unusual.model.modules())
            raise KeyboardInterrupt
    assert_untouched(unusual.model, before)
    with pytest.raises(SerialLoRAError):
        with borrowed(unusual.model, float("nan")):
            pass
    assert_untouched(unusual.model, before)


def test_a_failing_encoder_leaves_the_model_as_it_was(unusual, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory left")

    panel = MaskPanel(unusual, [example()])
    before = fingerprint(unusual.model)
    monkeypatch.setattr(unusual.model.image_encoder, "forward", fail)
    with pytest.raises(RuntimeError, match="no memory left"):
        panel.scale.value = 0.2
    assert_untouched(unusual.model, before)


# ------------------------------------------------------------------------- what is said of it


def test_the_dice_is_that_of_the_object_whose_box_overlaps_most(panel):
    panel.choice.value = 1
    scene = panel.scene
    for number, box in enumerate(scene.boxes):
        panel.picker.box = tuple(map(float, box))
        assert scene.names[number] in panel.picker.message
        for html, found in zip((panel.before.value, panel.after.value), panel.found, strict=True):
            expected = f"Dice {slow_dice(found, scene.masks[number]):.2f}"
            assert shown_words(html) == expected
            assert np.array_equal(
                shown_picture(html), overlay(scene.picture, scene.masks[number], found)
            )
            assert f"{expected}'" in html  # the alternative text says it as well


def test_a_box_beside_every_object_has_no_dice():
    picture, mask = Image.new("RGB", (40, 30), "teal"), np.zeros((1, 30, 40), bool)
    mask[0, 2:8, 2:8] = True
    item = SegmentationExample(picture, mask, ("star",), "one")
    panel = MaskPanel(backbone_of(adapted_sam()), [item])
    panel.picker.box = (8, 8, 30, 28)  # shares a corner with the star's box, and no area
    assert "no Dice" in panel.picker.message
    assert shown_words(panel.before.value) == (
        f"found: {panel.found[0].sum() / (40 * 30):.1%} of the picture"
    )
    panel.picker.box = (7, 7, 30, 28)
    assert "star" in panel.picker.message


def test_a_picture_without_truth_is_shown_without_dice(panel):
    panel.choice.value = 2
    assert panel.picker.box == (9, 7, 28, 22)  # the middle of 37 x 29
    assert "no Dice" in panel.picker.message
    picture = shown_picture(panel.after.value)
    assert np.array_equal(picture, overlay(panel.scene.picture, None, panel.found[1]))


def test_titles_say_which_scale_and_names_are_no_html(backbone):
    item = example(objects=1)
    item = SegmentationExample(item.picture, item.masks, ("<b>'x'",), "odd")
    panel = MaskPanel(backbone, [item])
    panel.scale.value = 0.35
    assert "after: scale 0.35" in panel.after.value
    assert "before: no adapter" in panel.before.value
    assert "<b>'x'" not in panel.before.value + panel.after.value


def test_pictures_are_sent_no_larger_than_they_are_shown(backbone):
    panel = MaskPanel(backbone, [Image.new("L", (1600, 900))])
    assert Image.open(io.BytesIO(panel.picker.picture)).size == (2 * SHOWN, 2 * SHOWN * 9 // 16)
    assert (panel.picker.width, panel.picker.height) == (1600, 900)
    assert panel.picker.shown_width == SHOWN
    assert shown_picture(panel.after.value).shape == (2 * SHOWN * 9 // 16, 2 * SHOWN, 3)
    assert panel.found[0].shape == (900, 1600)


def test_choosing_a_picture_shows_it_with_its_first_object_boxed(panel):
    panel.choice.value = 1
    scene = panel.scene
    assert panel.picker.box == tuple(map(float, scene.boxes[0]))
    sent = np.asarray(Image.open(io.BytesIO(panel.picker.picture)))
    assert np.array_equal(sent, as_array(scene.picture))


# ---------------------------------------------------------------------------------- the box


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ((1, 2, 8, 9), (1, 2, 8, 9)),
        ((8, 9, 1, 2), (1, 2, 8, 9)),
        ((8, 2, 1, 9), (1, 2, 8, 9)),
        ((-5, -5, 100, 6.5), (0, 0, 20, 6.5)),
        ((5, 5, 5, 5), None),
        ((5, 5, 5, 9), None),
        ((30, 3, 40, 9), None),
        ((3, -9, 9, -1), None),
        ((float("nan"), 0, 5, 5), None),
        ((0, 0, float("inf"), 5), None),
    ],
)
def test_a_box_is_brought_into_order_or_the_one_before_stays(drawn, expected):
    assert tidy_box(drawn, (20, 10)) == expected
    picker = BoxPicker()
    picker.show(Image.new("RGB", (20, 10)), (3, 3, 7, 7))
    picker.box = drawn
    assert picker.box == (expected or (3, 3, 7, 7))


def test_the_box_can_come_from_the_browser(panel):
    panel.picker.set_state({"box": [4, 5, 20, 25]})
    assert panel.picker.box == (4, 5, 20, 25)
    before = panel.found
    panel.picker.set_state({"box": [6, 6, 6, 6]})
    assert panel.picker.box == (4, 5, 20, 25)
    assert all(np.array_equal(*pair) for pair in zip(panel.found, before, strict=True))
    panel.picker.set_state({"box": [30, 90, 20, -3]})
    assert panel.picker.box == (20, 0, 30, 29)


# ------------------------------------------------------------------------------- shown, or not


def test_the_live_panel_puts_no_pictures_into_the_notebook(backbone, capture_display):
    panel = mask_panel(backbone, [example()], static=False)
    (shown,) = capture_display
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert len(json.dumps(shown)) < 1000
    panel.picker.box = (2, 2, 20, 20)
    assert len(capture_display) == 1


def test_the_still_form_shows_what_the_slider_would(backbone, capture_display):
    items = [example(), example((29, 37), 3, seed=1), example().picture]
    assert mask_panel(backbone, items, static=True) is None
    figures = [data for data in capture_display if "image/png" in data]
    assert len(figures) == 2
    for data in figures:
        assert data["metadata"]["image/png"]["alt"] in data["text/plain"]
    rows, curve = (data["metadata"]["image/png"]["alt"] for data in figures)
    for scale in (0, 0.5, 1, 1.5):
        set_scale(backbone.model, scale)
        found, _ = predict_masks(backbone, items[0].picture, items[0].boxes[:1])
        assert f"scale {scale:g}: {slow_dice(found[0], items[0].masks[0]):.2f}" in rows
    assert "2 pictures" in curve
    assert not any("widget-view" in kind for data in capture_display for kind in data)


def test_pictures_without_truth_alone_have_no_curve(backbone, capture_display):
    mask_panel(backbone, example().picture, static=True)
    assert sum("image/png" in data for data in capture_display) == 1


def test_the_environment_asks_for_the_still_form(backbone, monkeypatch, capture_display):
    monkeypatch.setenv("SERIAL_LORA_STATIC", "1")
    assert mask_panel(backbone, [example()]) is None
    monkeypatch.setenv("SERIAL_LORA_STATIC", "0")
    assert isinstance(mask_panel(backbone, [example()]), MaskPanel)


def test_the_curve_is_the_mean_dice_of_the_lab_at_every_scale(backbone):
    items = [example(), example((51, 80), 3, seed=2)]
    scores = dice_by_scale(MasksAtScales(backbone), as_scenes(items))
    for values, item in zip(scores.values(), items, strict=True):
        for value, scale in zip(values, CURVE_SCALES, strict=True):
            set_scale(backbone.model, scale)
            found, _ = predict_masks(backbone, item.picture, item.boxes)
            each = [slow_dice(f, t) for f, t in zip(found, item.masks, strict=True)]
            assert value == pytest.approx(np.mean(each), abs=1e-6)


# ------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("static", [True, False])
def test_what_cannot_be_shown_is_refused_in_a_sentence(static, capture_display):
    good = backbone_of(adapted_sam())
    merged = backbone_of(merge(adapted_sam()))
    for backbone, items, words in (
        (good, [], "no pictures"),
        (good, [example(), np.zeros((4, 4))], "ndarray is no picture"),
        (good.model, [example()], "Sam is no SAM backbone"),
        (backbone_of(small_sam()), [example()], "no adapters"),
        (merged, [example()], "merged"),
    ):
        with pytest.raises(SerialLoRAError, match=words) as refused:
            mask_panel(backbone, items, static=static)
        assert str(refused.value).count(".") <= 2 and str(refused.value).endswith(".")
    assert capture_display == []


def test_an_adapter_that_was_taken_out_meanwhile_is_missed_in_words(panel, backbone):
    eject(backbone.model)
    panel.picker.box = (1, 1, 9, 9)
    assert "no adapters" in panel.picker.message
    assert panel.before.value == panel.after.value == ""


def test_a_picture_that_is_too_narrow_is_named_and_the_next_one_works(backbone):
    panel = MaskPanel(backbone, [Image.new("RGB", (400, 1)), example()])
    assert "too narrow" in panel.picker.message
    panel.choice.value = 1
    assert "thing 0" in panel.picker.message


# ---------------------------------------------------------------------------- the front end

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="the front end is tested with node")

# As much of a page and of a widget's model as the front end asks for, and a clock that is moved by
# hand. The surface lies at (10, 20) and shows each pixel of a picture of 100 x 50 as two pixels of
# the screen.
PAGE = """
import widget, { boxBetween, movedBox, resizedBox, throttled } from "./box_picker.mjs";
let now = 0, timers = [];
globalThis.setTimeout = (run, wait) => timers.push({ run, due: now + wait, id: timers.length + 1 });
globalThis.clearTimeout = (id) => (timers = timers.map((timer) => timer.id === id ? {} : timer));
const pass = (ms) => {
  for (const end = now + ms; now < end; now++) {
    for (const timer of timers.filter(({ due }) => due === now)) timer.run();
  }
};
class Element {
  constructor() {
    this.children = []; this.attributes = {}; this.listeners = {}; this.captured = new Set();
    this.style = { setProperty: (name, value) => (this.style[name] = value) };
    this.classList = { toggle: (name, on) => (this.toggled = { [name]: on }) };
  }
  appendChild(node) { this.children.push(node); }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, react) { this.listeners[name] = react; }
  getBoundingClientRect() { return { left: 10, top: 20, width: 200, height: 100 }; }
  focus() { this.focused = true; }
  setPointerCapture(id) { this.captured.add(id); }
  hasPointerCapture(id) { return this.captured.has(id); }
  releasePointerCapture(id) { this.captured.delete(id); }
  find(name) {
    if (this.className === name) return this;
    return this.children.map((child) => child.find(name)).find(Boolean);
  }
}
globalThis.document = { createElement: () => new Element() };
const revoked = [];
let pictures = 0;
URL.createObjectURL = () => `blob:${++pictures}`;
URL.revokeObjectURL = (url) => url && revoked.push(url);
const sent = [];
let reactions = [];
const tellAll = () => reactions.forEach(([, react]) => react());
const state = {
  picture: new DataView(new ArrayBuffer(4)), width: 100, height: 50, box: [10, 10, 40, 30],
  label: "drag a box", message: "said by the kernel", shown_width: 200, colour: "red",
};
const model = {
  get: (name) => state[name],
  set: (name, value) => (state[name] = value),
  save_changes: () => sent.push([...state.box]),
  on: (...pair) => reactions.push(pair),
  off: (...pair) => (reactions = reactions.filter((p) => p.some((part, i) => part !== pair[i]))),
};
const el = new Element();
const close = widget.render({ model, el });
const surface = el.find("box-picker-surface"), outline = el.find("box-picker-box");
const message = el.find("box-picker-message"), image = el.find("box-picker-picture");
const event = (name, x, y, more = {}) => {
  let kept = true;
  surface.listeners[name]({
    pointerId: 1, isPrimary: true, button: 0, clientX: 10 + 2 * x, clientY: 20 + 2 * y,
    preventDefault: () => (kept = false), stopPropagation: () => {}, ...more,
  });
  return kept;
};
const key = (name, more = {}) => event("keydown", 0, 0, { key: name, ...more });
const out = {};
"""


def run_in_node(folder: Path, script: str) -> dict:
    """What the script left in ``out``."""
    shutil.copyfile(ASSETS / "box_picker.js", folder / "box_picker.mjs")
    page = folder / "page.mjs"
    page.write_text(f"{PAGE}{script}\nconsole.log(JSON.stringify(out));\n", "utf-8")
    done = subprocess.run([NODE, page], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_boxes_are_drawn_moved_and_resized_inside_the_picture(tmp_path):
    out = run_in_node(
        tmp_path,
        """
        const size = { width: 100, height: 50 };
        out.forward = boxBetween([3.4, 4.6], [20.2, 30.9], size);
        out.backward = boxBetween([20.2, 4.6], [3.4, 30.9], size);
        out.outside = boxBetween([-30, 20], [130, 900], size);
        out.flat = boxBetween([3, 4], [50, 4.3], size);
        out.moved = movedBox([10, 10, 40, 30], [-4, 3], size);
        out.stopped = movedBox([10, 10, 40, 30], [-40, 300], size);
        out.grown = resizedBox([10, 10, 40, 30], [100, 2], size);
        out.shrunk = resizedBox([10, 10, 40, 30], [-100, -100], size);
        """,
    )
    assert out == {
        "forward": [3, 5, 20, 31],
        "backward": [3, 5, 20, 31],
        "outside": [0, 20, 100, 50],
        "flat": None,
        "moved": [6, 13, 36, 33],
        "stopped": [0, 30, 30, 50],
        "grown": [10, 10, 100, 32],
        "shrunk": [10, 10, 11, 11],
    }


@needs_node
def test_a_drag_sends_some_boxes_on_its_way_and_the_last_one_for_certain(tmp_path):
    out = run_in_node(
        tmp_path,
        """
        out.first = { outline: { ...outline.style }, words: surface.attributes["aria-label"] };
        event("pointerdown", 90, 40);
        out.focused = surface.focused;
        for (let step = 1; step <= 40; step++) {
          event("pointermove", 90 - 2 * step, 40 - step / 2);
          pass(5);
        }
        out.during = [...sent];
        state.box = [1, 1, 2, 2];
        tellAll();
        out.own = outline.style.left;  // an older answer does not move the box under the hand
        event("pointermove", 5, 8, { pointerId: 2 });
        event("pointerup", -50, -60);
        out.all = [...sent];
        pass(120);
        out.later = sent.length;
        """,
    )
    first = out["first"]
    assert first["outline"]["left"] == "10%" and first["outline"]["height"] == "40%"
    assert "x 10 to 40 of 100, y 10 to 30 of 50" in first["words"]
    assert out["focused"]
    # The first that has area, and then the latest every 80 of the 200 milliseconds.
    assert out["during"] == [[86, 39, 90, 40], [54, 31, 90, 40], [22, 23, 90, 40]]
    assert out["own"] == "10%"
    assert out["all"][-1] == [0, 0, 90, 40]
    assert out["later"] == len(out["all"])


@needs_node
def test_throttling_keeps_the_latest(tmp_path):
    out = run_in_node(
        tmp_path,
        """
        const got = [];
        const sender = throttled((value) => got.push(value), 30);
        for (let n = 0; n < 5; n++) sender.later(n);
        pass(90);
        out.two = [...got];
        sender.later("first");
        sender.later("dropped");
        sender.now("last");
        sender.later("after");
        sender.later("stopped");
        sender.stop();
        pass(90);
        out.all = got;
        """,
    )
    assert out["two"] == [0, 4]
    assert out["all"] == [0, 4, "first", "last", "after"]


@needs_node
def test_a_click_an_escape_and_a_lost_pointer_leave_the_box_alone(tmp_path):
    out = run_in_node(
        tmp_path,
        """
        event("pointerdown", 50, 20); event("pointermove", 51, 20.5); event("pointerup", 51, 20.5);
        out.click = { sent: sent.length, box: state.box, message: message.textContent };
        event("pointerdown", 50, 20, { button: 2 });
        event("pointermove", 90, 40); event("pointerup", 90, 40);
        event("pointerdown", 50, 20, { isPrimary: false });
        event("pointermove", 90, 40);
        out.others = sent.length;
        for (const end of [() => key("Escape"), () => event("pointercancel", 0, 0)]) {
          event("pointerdown", 50, 20); event("pointermove", 90, 40);
          out.drawn = outline.style.left;
          end();
          event("pointerup", 90, 40);
          (out.ends ??= []).push([state.box, outline.style.left, message.textContent]);
        }
        """,
    )
    assert out["click"]["sent"] == 0 and out["click"]["box"] == [10, 10, 40, 30]
    assert "That was a click" in out["click"]["message"]
    assert out["others"] == 0
    assert out["drawn"] == "50%"
    assert out["ends"] == [[[10, 10, 40, 30], "10%", "said by the kernel"]] * 2


@needs_node
def test_arrow_keys_move_and_resize_and_other_keys_are_left_to_the_page(tmp_path):
    out = run_in_node(
        tmp_path,
        """
        key("ArrowRight"); key("ArrowDown"); key("ArrowDown");
        pass(100);
        out.moved = sent.at(-1);
        key("ArrowLeft", { shiftKey: true });
        pass(100);
        out.resized = sent.at(-1);
        out.taken = key("ArrowUp");
        out.left = [key("Tab"), key("a"), key("ArrowUp", { ctrlKey: true })];
        """,
    )
    assert out["moved"] == [11, 12, 41, 32]
    assert out["resized"] == [11, 12, 40, 32]
    assert out["taken"] is False and out["left"] == [True, True, True]


@needs_node
def test_a_view_follows_its_model_and_lets_go_of_it_when_closed(tmp_path):
    out = run_in_node(
        tmp_path,
        """
        const other = new Element();
        widget.render({ model, el: other });
        Object.assign(state, { box: [0, 0, 50, 25], width: 200, message: "news" });
        tellAll();
        out.both = [el, other].map((view) => [
          view.find("box-picker-box").style.width, view.find("box-picker-message").textContent,
        ]);
        out.ratio = surface.style.aspectRatio;
        out.enlarged = surface.toggled;
        const last = image.src;
        const before = reactions.length;
        close();
        out.closed = [before - reactions.length, revoked.includes(last)];
        out.roles = [surface.attributes.role, surface.tabIndex, message.attributes.role];
        """,
    )
    assert out["both"] == [["25%", "news"]] * 2
    assert out["ratio"] == "200 / 50" and out["enlarged"] == {"box-picker-enlarged": False}
    assert out["closed"] == [4, True]
    assert out["roles"] == ["application", 0, "status"]


def test_the_front_end_asks_only_for_what_the_widget_has():
    asked = set(re.findall(r'model\.(?:get|set)\("(\w+)"', (ASSETS / "box_picker.js").read_text()))
    synced = set(BoxPicker().trait_names(sync=True))
    assert asked and asked <= synced
    classes = re.findall(r"\.(box-picker[\w-]*)", (ASSETS / "box_picker.css").read_text())
    sources = (ASSETS / "box_picker.js").read_text() + Path(
        sys.modules["serial_lora_course.panels.masks"].__file__
    ).read_text()
    assert set(classes) <= set(re.findall(r"box-picker[\w-]*", sources))
    assert "http" not in sources  # it works without a network
