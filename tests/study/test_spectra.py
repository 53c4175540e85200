"""The paper's Fig. 3 on small models, as CLAIMS.md quotes it."""

from serial_lora_course.labs.records import read_records
from study import spectra


def test_the_shipped_runs_say_what_is_quoted():
    told = spectra.judged(read_records(spectra.SHIPPED)).xs("serial_lora", level="method")
    assert told["W + dW between"].round(2).tolist() == [0.3, 0.36]
    assert told["erank"].round(2).tolist() == [-1.3, -2.55]
    assert told["erank ±"].round(2).tolist() == [0.98, 0.49]
