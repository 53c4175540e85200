"""What adapters changed, as tables: by dense matrices and by loops; and the records made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.lessons.l10_inside import runs as spectra
from serial_lora_course.lessons.l10_inside.runs import (
    DATASETS,
    Subject,
    make_subject,
    run_all,
)
from serial_lora_course.lessons.l10_inside.tables import (
    claim_table,
    spectra_table,
)
from serial_lora_course.measures.spectra import (
    effective_rank,
    share_along_base,
    weight_changes,
)
from tests.guard.test_shipped import needs_pinned_scenes
from tests.labs.lab_models import calls
from tests.labs.small_labs import small_lab
from tests.library.tiny_models import TINY, fill_adapters


def sam_encoder() -> torch.nn.Module:
    """Three blocks of width 32."""
    return TINY["segment_anything"].build()


def trained(model: torch.nn.Module, config) -> torch.nn.Module:
    """The model with adapters whose B is no longer zero."""
    return fill_adapters(inject(model, config))


def changes_of(config) -> list:
    return weight_changes(trained(sam_encoder(), config))


@pytest.fixture(params=[SerialLoRAConfig, LoRAConfig], ids=["serial_lora", "lora"])
def method(request):
    return request.param


def test_table_says_the_same_as_dense_matrices(method):
    changes = changes_of(method(rank=3))
    table = spectra_table(changes)
    assert len(table) == len(changes)
    for change, row in zip(changes, table.itertuples(), strict=True):
        assert (row.site, row.projection, row.block) == (
            change.site,
            change.projection,
            change.block,
        )
        assert row.rank == torch.linalg.matrix_rank(change.change) == 3
        assert 1 <= row.stable_rank <= row.effective_rank + 1e-9 <= 3 + 1e-6
        assert row.size == pytest.approx((change.change.norm() / change.weight.norm()).item())
        largest, base = (
            torch.linalg.matrix_norm(matrix, 2).item() for matrix in (change.change, change.weight)
        )
        assert row.largest == pytest.approx(largest / base)
        assert row.effective_rank_before == pytest.approx(
            effective_rank(torch.linalg.svdvals(change.weight))
        )
        assert row.effective_rank_after == pytest.approx(
            effective_rank(torch.linalg.svdvals(change.adapted))
        )


# --- the claim ---------------------------------------------------------------------------------


def two_adapters(rank: int = 3, scale: float = 1.0):
    changes = []
    for config in (LoRAConfig(rank=rank, scale=scale), SerialLoRAConfig(rank=rank)):
        torch.manual_seed(0)
        changes.append(changes_of(config))
    return changes


def test_claim_table_by_loops():
    lora, serial = two_adapters(rank=5)
    table = claim_table(lora, serial, directions=2)
    assert len(table) == len(serial) == 9
    partners = {(c.site, c.projection): c for c in lora}
    for own, row in zip(serial, table.itertuples(), strict=True):
        partner = partners[row.site, row.projection]
        base, ours, theirs = (
            np.linalg.svd(matrix.numpy())[1]
            for matrix in (own.weight, own.adapted, partner.adapted)
        )
        triples = list(zip(base, ours, theirs, strict=True))
        inside = [w < s < t or w > s > t for w, s, t in triples]
        assert row.between == pytest.approx(np.mean(inside))
        assert row.nearer == pytest.approx(
            np.mean([abs(s - w) < abs(t - w) for w, s, t in triples])
        )
        small, low = (np.linalg.svd(c.change.numpy()) for c in (own, partner))
        order = [t < s < w for t, s, w in zip(low[1][:5], small[1][:5], base[:5], strict=True)]
        assert row.change_between == pytest.approx(np.mean(order))
        assert row.effective_rank_lora == pytest.approx(effective_rank(torch.tensor(low[1][:5])))
        assert row.effective_rank_serial == pytest.approx(
            effective_rank(torch.tensor(small[1][:5]))
        )
        assert row.size_serial == pytest.approx((own.change.norm() / own.weight.norm()).item())
        assert row.size_lora == pytest.approx((partner.change.norm() / own.weight.norm()).item())
        assert row.along_lora == pytest.approx(share_along_base(partner, 5)[1])
        assert row.along_serial == pytest.approx(share_along_base(own, 5)[1])
        for name, side in (
            ("writes", lambda svd: svd[0][:, :2]),
            ("reads", lambda svd: svd[2][:2].T),
        ):
            cosines = np.linalg.svd(side(small).T @ side(low))[1]
            assert getattr(row, name) == pytest.approx(np.mean(cosines**2))


# --- the command that makes the records ------------------------------------------------------


@pytest.fixture
def subject(monkeypatch, tmp_path):
    """A small SAM and its lab."""
    small = small_lab("sam", monkeypatch, tmp_path / "models")
    return Subject(small.lab(), small.amounts[0])


def test_a_pair_that_is_there_is_not_trained_again(subject, tmp_path, monkeypatch):
    path = tmp_path / "spectra.jsonl"
    first = run_all([subject], [1], path)
    runs = calls(monkeypatch, spectra, "run_one")
    again = run_all([subject], [1, 2], path)
    assert again[:2] == first and {arguments[3] for arguments, _ in runs} == {2}
    runs.clear()
    subject.lab.config = replace(subject.lab.config, lr=0.02)
    run_all([subject], [1], path)
    assert len(runs) == 4


def test_the_shipped_pairs_are_found_again():
    needs_pinned_scenes()
    for lab in DATASETS:
        subject = make_subject(lab, precision="bf16")
        for record in (r for r in shipped_records("spectra") if r.settings["lab"] == lab):
            assert record.key == subject.key(record.method, record.seed)
