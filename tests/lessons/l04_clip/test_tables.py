"""The paper's cells stand beside the records."""

from serial_lora_course.labs.frames import compare_methods, frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l04_clip.tables import PAIRS


def test_differences_are_judged_by_the_sets():
    table = compare_methods(frame(shipped_records("clip")), PAIRS, "accuracy")
    assert len(table) == 15 and set(table["sample"]) == {"6 sets"}
    for row in table.itertuples():  # 6 sets leave 5 degrees of freedom
        assert (row.verdict == "not significant") == (abs(row.mean) <= 2.571 * row.sem)
