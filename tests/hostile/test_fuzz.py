"""Hostile files by Hypothesis: taken, or refused in one sentence; no file and no model is changed.

The same examples at every run of `make test`; many other ones under `make test-all`.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serial_lora import SerialLoRAConfig, SerialLoRAError, inject, load_adapter, save_adapter
from serial_lora_course.labs.records import Kept, append_record, read_records, shipped_records
from tests.labs.lab_models import same_tensors, small_clip
from tests.library.tiny_models import bits

Attack = tuple[st.SearchStrategy, Callable]

# ----------------------------------------------------------------------------- what is handed in

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
JSON = VALUES.map(json.dumps) | st.integers(1, 60_000).map(lambda depth: "[" * depth + "]" * depth)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with bits flipped, cut off, or with something in the middle."""
    place = st.integers(0, len(content) - 1)

    def changed(at: int, bit: int, more: bytes) -> bytes:
        return content[:at] + bytes([content[at] ^ 1 << bit]) + more + content[at + 1 :]

    return st.one_of(
        st.builds(changed, place, st.integers(0, 7), st.just(b"") | st.binary(max_size=9)),
        place.map(lambda at: content[:at]),
        st.binary(max_size=40),
    )


def adapter_files(folder: Path) -> Attack:
    model = inject(small_clip(), SerialLoRAConfig(rank=2))
    path = save_adapter(model, folder / "adapter.safetensors")
    good = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        before = bits(model)
        try:
            load_adapter(model, path)
        except SerialLoRAError:
            assert same_tensors(bits(model), before)
        else:
            assert all(tensor.isfinite().all() for tensor in bits(model).values())
        assert path.read_bytes() == content

    return damaged(good), check


def records(folder: Path) -> Attack:
    path, (good, other) = folder / "records.jsonl", shipped_records("clip")[:2]
    fields = st.sampled_from([*asdict(good), "new"])

    def line(changes: dict[str, str]) -> str:
        marked = asdict(good) | {name: f"HERE {name}" for name in changes}
        text = json.dumps(marked)
        for name, value in changes.items():
            text = text.replace(json.dumps(f"HERE {name}"), value)
        return text

    lines = st.one_of(
        st.dictionaries(fields, JSON, min_size=1, max_size=2).map(line).map(os.fsencode),
        damaged(json.dumps(asdict(good)).encode()),
    )
    files = st.lists(lines, min_size=1, max_size=3).map(b"\n".join)

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            known = Kept(path).known
            append_record(path, other)
        except SerialLoRAError:
            assert path.read_bytes() == content
            return
        assert path.read_bytes().startswith(content)
        assert {*known, other.key} == {record.key for record in read_records(path)}

    return files, check


# ------------------------------------------------------------------------------------- handed in


@pytest.mark.parametrize("examples", [100, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [adapter_files, records])
def test_hostile_inputs(kind, examples, tmp_path):
    strategy, check = kind(tmp_path)
    usual = settings(max_examples=examples, derandomize=examples < 1000, database=None)
    patient = settings(usual, deadline=None, suppress_health_check=list(HealthCheck))
    patient(given(strategy)(lambda example: check(example)))()
