"""The widget of a picture with a box: what a box may be, and what the page does with a hand."""

from pathlib import Path

import pytest
from PIL import Image

from serial_lora_course.panels.box_picker import BoxPicker, tidy_box
from tests.panels.panel_probes import needs_node, run_in_node

PAGE = (Path(__file__).parent / "box_picker_page.mjs").read_text("utf-8")


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


@needs_node
def test_boxes_are_drawn_moved_and_resized_inside_the_picture(tmp_path):
    out = run_in_node(
        tmp_path,
        "box_picker",
        PAGE,
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
        "box_picker",
        PAGE,
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
def test_a_click_an_escape_and_a_lost_pointer_leave_the_box_alone(tmp_path):
    out = run_in_node(
        tmp_path,
        "box_picker",
        PAGE,
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
