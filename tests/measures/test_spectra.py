"""Spectra, ranks and angles against dense decompositions, projectors and loops."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    eject,
    inject,
    merge,
)
from serial_lora.attention import find_attention_sites
from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.spectra import (
    ADAPTED,
    CHANGE,
    WEIGHT,
    change_spectra,
    effective_rank,
    learned_directions,
    numerical_rank,
    overlap,
    principal_angles,
    product_singular_values,
    product_svd,
    share_along_base,
    singular_values,
    weight_changes,
)
from tests.library.tiny_models import TINY, Tiny, fill_adapters

sizes = st.integers(1, 12)
spectrum = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def factors(rows: int, columns: int, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return random(rows, rank, seed=seed), random(rank, columns, seed=seed + 1)


# --- singular values of a product --------------------------------------------------------------


@given(sizes, sizes, sizes, st.integers(0, 999))
@settings(deadline=None)
def test_factors_give_the_products_svd(rows, columns, rank, seed):
    left, right = factors(rows, columns, rank, seed)
    u, values, vh = product_svd(left, right)
    eye = torch.eye(len(values), dtype=torch.float64)
    torch.testing.assert_close(u @ values.diag() @ vh, left @ right)
    torch.testing.assert_close(u.mT @ u, eye)
    torch.testing.assert_close(vh @ vh.mT, eye)
    torch.testing.assert_close(values, product_singular_values(left, right))
    assert values.tolist() == sorted(values.tolist(), reverse=True)


# --- one number for many -----------------------------------------------------------------------


@given(spectrum)
@settings(deadline=None)
def test_effective_rank_by_a_loop(values):
    total = math.fsum(values)
    got = effective_rank(torch.tensor(values, dtype=torch.float64))
    if total == 0:
        assert got == 0
        return
    entropy = -math.fsum(v / total * math.log(v / total) for v in values if v / total > 0)
    assert got == pytest.approx(math.exp(entropy))
    assert 1 - 1e-9 <= got <= sum(v > 0 for v in values) + 1e-9


@given(sizes, sizes, sizes, st.integers(0, 999))
@settings(deadline=None)
def test_numerical_rank_is_torchs(rows, columns, rank, seed):
    left, right = factors(rows, columns, rank, seed)
    expected = int(torch.linalg.matrix_rank(left @ right))
    assert expected == min(rows, columns, rank)
    assert numerical_rank(singular_values(left @ right), max(rows, columns)) == expected
    assert numerical_rank(product_singular_values(left, right), max(rows, columns)) == expected


def test_rounding_to_float32_needs_float32s_threshold():
    weight, (left, right) = random(40, 30, seed=5), factors(40, 30, 3, seed=6)
    rounded = (weight + left @ right).float().double() - weight.float().double()
    values = singular_values(rounded)
    assert numerical_rank(values, 40) == 30
    assert numerical_rank(values, 40, eps=torch.finfo(torch.float32).eps) == 3


# --- angles ------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 999))
@settings(deadline=None)
def test_angles_are_scipys_and_overlap_is_that_of_projectors(p, q, seed):
    one, other = random(12, p, seed=seed), random(12, q, seed=seed + 1)
    angles = principal_angles(one, other)
    theirs = scipy.linalg.subspace_angles(one.numpy(), other.numpy())[::-1]
    assert np.allclose(angles, np.rad2deg(theirs), rtol=0, atol=1e-9)
    projector, projector_of_other = (
        basis @ basis.mT for basis in (torch.linalg.qr(one).Q, torch.linalg.qr(other).Q)
    )
    by_projectors = torch.trace(projector @ projector_of_other).item() / min(p, q)
    assert overlap(angles) == pytest.approx(by_projectors)
    mixed = one @ random(p, p, seed=seed + 2)  # other columns, same space
    assert np.allclose(principal_angles(mixed, other), angles, atol=1e-4)
    assert np.allclose(principal_angles(other, one), angles, atol=1e-6)


# --- what an adapter changes -------------------------------------------------------------------


MODELS = ["open_clip", "segment_anything", "sd35_both"]


@pytest.fixture(params=MODELS)
def tiny(request) -> Tiny:
    return TINY[request.param]


def trained(tiny: Tiny, method: type, **options) -> torch.nn.Module:
    """The model with adapters whose B is no longer zero."""
    return fill_adapters(inject(tiny.build(), method(stream=tiny.stream, **options)))


SAM = TINY["segment_anything"]


def attention_weights(model: torch.nn.Module, stream: str) -> dict[tuple[str, str], torch.Tensor]:
    return {
        (site.label, part): projection.weight(model)[projection.row_slice].detach().clone()
        for site in find_attention_sites(model, stream=stream)
        for part, projection in site.projections.items()
    }


def test_changes_are_what_merging_does(tiny, method):
    before = attention_weights(tiny.build(), tiny.stream)
    model = trained(tiny, method, rank=3, scale=0.7)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    changes = weight_changes(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    merge(model)
    after = attention_weights(model, tiny.stream)
    parts = {"q", "k", "v"} | ({"out"} if method is LoRAConfig else set())
    assert {(c.site, c.projection) for c in changes} == {k for k in before if k[1] in parts}
    for change, again in zip(changes, weight_changes(model), strict=True):
        place = (change.site, change.projection)
        torch.testing.assert_close(change.weight.float(), before[place], rtol=0, atol=0)
        torch.testing.assert_close(change.adapted.float(), after[place])
        assert change.change.abs().max() > 1e-3
        assert torch.equal(change.change, again.change)  # merged or not
    eject(model)
    with pytest.raises(SerialLoRAError, match="no adapters"):
        weight_changes(model)


def test_spectra_are_those_of_the_dense_matrices_and_move_no_further_than_the_rank(tiny, method):
    """A change of rank r moves no singular value past r others (Weyl)."""
    for change in weight_changes(trained(tiny, method, rank=3)):
        spectra = change_spectra(change)
        for name, matrix in (
            (WEIGHT, change.weight),
            (ADAPTED, change.adapted),
            (CHANGE, change.change),
        ):
            dense = np.linalg.svd(matrix.numpy())[1][: 3 if name == CHANGE else None]
            assert np.allclose(spectra[name], dense)
        before, after = spectra[WEIGHT], spectra[ADAPTED]
        assert (after[3:] <= before[:-3] + 1e-12).all()
        assert (before[3:] <= after[:-3] + 1e-12).all()
        assert ((after - before).abs() <= spectra[CHANGE][0] + 1e-12).all()


def test_one_row_space_for_serial_lora_and_four_for_lora(tiny, method):
    changes = weight_changes(trained(tiny, method, rank=3))
    site = changes[0].site
    reads = [learned_directions(change)[0] for change in changes if change.site == site]
    for basis in reads[1:3]:  # k and v beside q
        largest = principal_angles(reads[0], basis).max()
        assert largest < 1e-5 if method is SerialLoRAConfig else largest > 10


def test_directions_are_the_strongest(method):
    change = weight_changes(trained(SAM, method, rank=5))[0]
    u, _, vh = torch.linalg.svd(change.change)
    reads, writes = learned_directions(change, 2)
    assert reads.shape == writes.shape == (32, 2)
    assert principal_angles(reads, vh[:2].mT).max() < 1e-5
    assert principal_angles(writes, u[:, :2]).max() < 1e-5
    with pytest.raises(SerialLoRAError, match="rank 5"):
        learned_directions(change, 6)


def test_shares_along_the_base_by_projectors(method):
    change = weight_changes(trained(SAM, method, rank=5))[0]
    u, _, vh = np.linalg.svd(change.weight.numpy())
    inputs, outputs = vh[:6].T @ vh[:6], u[:, :6] @ u[:, :6].T
    dense = change.change.numpy()
    whole = np.linalg.norm(dense) ** 2
    assert share_along_base(change, 6) == pytest.approx(
        (np.linalg.norm(dense @ inputs) ** 2 / whole, np.linalg.norm(outputs @ dense) ** 2 / whole)
    )
    assert share_along_base(change, 32) == pytest.approx((1, 1))
