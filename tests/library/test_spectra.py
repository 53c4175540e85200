"""Spectra, ranks and angles against dense decompositions, projectors and loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    adapter_parameters,
    eject,
    inject,
    merge,
)
from serial_lora.attention import find_attention_sites
from serial_lora.config import STREAMS
from serial_lora.errors import SerialLoRAError
from serial_lora.spectra import (
    ADAPTED,
    CHANGE,
    WEIGHT,
    chance_overlap,
    claim_table,
    effective_rank,
    learned_directions,
    numerical_rank,
    overlap,
    principal_angles,
    product_singular_values,
    product_svd,
    share_along_base,
    share_between,
    singular_values,
    spectra_frame,
    spectra_table,
    stable_rank,
    weight_changes,
)
from serial_lora_course.labs import sam
from serial_lora_course.labs.records import Record, read_records
from serial_lora_course.labs.spectra import PAIRS, SUBJECTS, Subject, claim_frame, main, run_all

sizes = st.integers(1, 12)
spectrum = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def factors(rows: int, columns: int, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return random(rows, rank, seed=seed), random(rank, columns, seed=seed + 1)


# --- singular values of a product --------------------------------------------------------------


@given(sizes, sizes, sizes, st.integers(0, 999), st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_factors_give_the_products_singular_values(rows, columns, rank, seed, size):
    left, right = factors(rows, columns, rank, seed)
    left = size * left
    dense = np.linalg.svd((left @ right).numpy(), compute_uv=False)  # (min(rows, columns),)
    values = product_singular_values(left, right).numpy()
    assert len(values) == min(rows, columns, rank)
    assert np.allclose(values, dense[: len(values)], rtol=0, atol=1e-12 * dense[0])
    assert np.all(dense[len(values) :] <= 1e-12 * dense[0])


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


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.full((7,), 0.3)) == pytest.approx(7)
    assert effective_rank(torch.tensor([5.0, 0, 0])) == pytest.approx(1)
    values = torch.tensor([4.0, 2, 1])
    assert effective_rank(1000 * values) == pytest.approx(effective_rank(values))


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 999))
@settings(deadline=None)
def test_stable_rank_by_norms(rows, columns, seed):
    matrix = random(rows, columns, seed=seed)
    by_norms = (matrix.square().sum() / torch.linalg.matrix_norm(matrix, 2) ** 2).item()
    assert stable_rank(singular_values(matrix)) == pytest.approx(by_norms)
    assert 1 <= stable_rank(singular_values(matrix)) <= min(rows, columns) + 1e-9


def test_nothing_has_rank_zero():
    zero = torch.zeros(4)
    assert effective_rank(zero) == stable_rank(zero) == numerical_rank(zero, 9) == 0


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
def test_angles_by_arccosine_and_overlap_by_projectors(p, q, seed):
    one, other = random(12, p, seed=seed), random(12, q, seed=seed + 1)
    basis, basis_of_other = torch.linalg.qr(one).Q, torch.linalg.qr(other).Q
    cosines = torch.linalg.svdvals(basis.mT @ basis_of_other).clamp(max=1)
    angles = principal_angles(one, other)
    assert np.allclose(angles, np.rad2deg(np.arccos(cosines.numpy())), atol=1e-4)
    projector, projector_of_other = basis @ basis.mT, basis_of_other @ basis_of_other.mT
    by_projectors = torch.trace(projector @ projector_of_other).item() / min(p, q)
    assert overlap(angles) == pytest.approx(by_projectors)
    mixed = one @ random(p, p, seed=seed + 2)  # other columns, same space
    assert np.allclose(principal_angles(mixed, other), angles, atol=1e-4)
    assert np.allclose(principal_angles(other, one), angles, atol=1e-6)


def test_angles_of_known_planes():
    eye = torch.eye(5, dtype=torch.float64)
    plane = eye[:, :2]
    for degrees in (1e-7, 30.0, 89.0):
        turn = math.radians(degrees)
        tilted = torch.stack([eye[0], math.cos(turn) * eye[1] + math.sin(turn) * eye[2]], dim=1)
        assert principal_angles(plane, tilted) == pytest.approx([0, degrees], rel=1e-6, abs=1e-13)
    assert principal_angles(plane, eye[:, 2:4]) == pytest.approx([90, 90])
    assert principal_angles(plane, eye[:, :4]) == pytest.approx([0, 0], abs=1e-6)
    assert overlap(principal_angles(plane, eye[:, 1:3])) == pytest.approx(0.5)


@pytest.mark.parametrize(("one", "other"), [(4, 4), (2, 5), (6, 1)])
def test_random_subspaces_overlap_by_chance(one, other):
    width, draws = 20, 400
    measured = [
        overlap(principal_angles(random(width, one, seed=i), random(width, other, seed=draws + i)))
        for i in range(draws)
    ]
    error = np.std(measured) / draws**0.5
    assert abs(np.mean(measured) - chance_overlap(one, other, width)) < 4 * error


def test_angles_need_one_length():
    with pytest.raises(SerialLoRAError, match="no angle"):
        principal_angles(random(4, 2), random(5, 2))


# --- what an adapter changes -------------------------------------------------------------------


def open_clip_model():
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    return CLIP(
        16,
        CLIPVisionCfg(layers=2, width=32, head_width=8, patch_size=8, image_size=16),
        CLIPTextCfg(context_length=6, vocab_size=40, width=24, heads=4, layers=2),
    )


def sam_encoder():
    from segment_anything.modeling import ImageEncoderViT

    return ImageEncoderViT(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, out_chans=8, window_size=3
    )


def sd3_transformer(layers: int = 2, heads: int = 4, head_width: int = 8):
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=layers,
        attention_head_dim=head_width,
        num_attention_heads=heads,
        joint_attention_dim=24,
        caption_projection_dim=heads * head_width,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=8,
    )


MODELS = {"open_clip": open_clip_model, "sam": sam_encoder, "sd3": sd3_transformer}


def trained(model: torch.nn.Module, config) -> torch.nn.Module:
    """The model with adapters whose B is no longer zero."""
    inject(model, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(params=[SerialLoRAConfig, LoRAConfig], ids=["serial_lora", "lora"])
def method(request):
    return request.param


def attention_weights(model: torch.nn.Module, stream: str) -> dict[tuple[str, str], torch.Tensor]:
    return {
        (site.label, part): projection.weight(model)[projection.row_slice].detach().clone()
        for site in find_attention_sites(model, stream=stream)
        for part, projection in site.projections.items()
    }


def test_changes_are_what_merging_does(model, method):
    stream = STREAMS[2] if type(model).__name__.startswith("SD3") else STREAMS[0]
    before = attention_weights(model, stream)
    trained(model, method(rank=3, scale=0.7, stream=stream))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    changes = weight_changes(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    merge(model)
    after = attention_weights(model, stream)
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


def test_changes_stay_when_the_model_goes_on(method):
    model = trained(sam_encoder().double(), method(rank=2))
    changes = weight_changes(model)
    before = [(c.weight.clone(), c.left.clone(), c.right.clone()) for c in changes]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for change, kept in zip(changes, before, strict=True):
        for now, then in zip((change.weight, change.left, change.right), kept, strict=True):
            assert torch.equal(now, then)


def test_half_precision_and_wrappers(method):
    wrapped = torch.nn.Sequential(trained(sam_encoder().bfloat16(), method(rank=2)))
    changes = weight_changes(wrapped)
    assert len(changes) == 2 * (3 if method is SerialLoRAConfig else 4)
    assert {matrix.dtype for c in changes for matrix in (c.weight, c.change)} == {torch.float64}


def test_without_values_there_is_nothing_to_say(method):
    with torch.device("meta"):
        model = sam_encoder()
    with pytest.raises(SerialLoRAError, match="meta device"):
        weight_changes(inject(model, method(rank=2)))


def test_one_row_space_for_serial_lora_and_four_for_lora(model, method):
    changes = weight_changes(trained(model, method(rank=3)))
    site = changes[0].site
    reads = [learned_directions(change)[0] for change in changes if change.site == site]
    for basis in reads[1:3]:  # k and v beside q
        largest = principal_angles(reads[0], basis).max()
        assert largest < 1e-5 if method is SerialLoRAConfig else largest > 10


def test_directions_are_the_strongest(method):
    change = weight_changes(trained(sam_encoder(), method(rank=5)))[0]
    u, _, vh = torch.linalg.svd(change.change)
    reads, writes = learned_directions(change, 2)
    assert reads.shape == writes.shape == (32, 2)
    assert principal_angles(reads, vh[:2].mT).max() < 1e-5
    assert principal_angles(writes, u[:, :2]).max() < 1e-5
    with pytest.raises(SerialLoRAError, match="has rank 5, so it has no 6 directions"):
        learned_directions(change, 6)


def test_shares_along_the_base_by_projectors(method):
    change = weight_changes(trained(sam_encoder(), method(rank=5)))[0]
    u, _, vh = np.linalg.svd(change.weight.numpy())
    inputs, outputs = vh[:6].T @ vh[:6], u[:, :6] @ u[:, :6].T
    dense = change.change.numpy()
    whole = np.linalg.norm(dense) ** 2
    assert share_along_base(change, 6) == pytest.approx(
        (np.linalg.norm(dense @ inputs) ** 2 / whole, np.linalg.norm(outputs @ dense) ** 2 / whole)
    )
    assert share_along_base(change, 32) == pytest.approx((1, 1))


def test_a_fresh_adapter_has_learned_nothing(method):
    change = weight_changes(inject(sam_encoder(), method(rank=2)))[0]
    assert share_along_base(change, 4) == (0, 0)
    for number in (None, 1):
        with pytest.raises(SerialLoRAError, match="has rank 0"):
            learned_directions(change, number)
    assert spectra_table([change])[["rank", "effective_rank", "size"]].eq(0).all(axis=None)


# --- tables ------------------------------------------------------------------------------------


def test_frame_holds_the_dense_spectra(model, method):
    changes = weight_changes(trained(model, method(rank=3)))
    frame = spectra_frame(changes)
    for change in changes:
        mine = frame[(frame["site"] == change.site) & (frame["projection"] == change.projection)]
        assert (mine["tower"] == change.tower).all() and (mine["block"] == change.block).all()
        for name, matrix in ((WEIGHT, change.weight), (ADAPTED, change.adapted)):
            part = mine[mine["matrix"] == name]
            assert np.allclose(part["value"], np.linalg.svd(matrix.numpy())[1])
            assert part["index"].tolist() == list(range(1, len(part) + 1))
        small = mine.loc[mine["matrix"] == CHANGE, "value"]
        assert np.allclose(small, np.linalg.svd(change.change.numpy())[1][:3])


def test_a_change_of_rank_r_moves_no_value_past_r_others(model, method):
    for change in weight_changes(trained(model, method(rank=3))):
        before, after = singular_values(change.weight), singular_values(change.adapted)
        assert (after[3:] <= before[:-3] + 1e-12).all()
        assert (before[3:] <= after[:-3] + 1e-12).all()
        largest = product_singular_values(change.left, change.right)[0]
        assert ((after - before).abs() <= largest + 1e-12).all()


def test_table_says_the_same_as_dense_matrices(model, method):
    changes = weight_changes(trained(model, method(rank=3)))
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


@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=20))
@settings(deadline=None)
def test_between_by_a_loop(triples):
    inside = sum(min(a, c) < b < max(a, c) for a, b, c in triples)
    assert share_between(*zip(*triples, strict=True)) == pytest.approx(inside / len(triples))


def test_between_by_chance():
    base, draws = np.zeros(20_000), np.random.default_rng(0).standard_normal((3, 20_000))
    assert share_between(base, draws[0], draws[1]) == pytest.approx(1 / 4, abs=0.02)
    assert share_between(draws[0], draws[1], draws[2]) == pytest.approx(1 / 3, abs=0.02)


def two_adapters(rank: int = 3, scale: float = 1.0):
    changes = []
    for config in (LoRAConfig(rank=rank, scale=scale), SerialLoRAConfig(rank=rank)):
        torch.manual_seed(0)
        changes.append(weight_changes(trained(sam_encoder(), config)))
    return changes


def test_claim_table_by_loops():
    lora, serial = two_adapters(rank=5)
    table = claim_table(lora, serial, directions=2)
    assert len(table) == len(serial) == 6
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


def test_a_weak_serial_adapter_beside_a_strong_copy_of_it_is_always_between():
    _, serial = two_adapters()
    weaker = [replace(change, left=1e-3 * change.left) for change in serial]
    strong = [replace(change, left=2e-3 * change.left) for change in serial]
    table = claim_table(strong, weaker)
    assert (table["nearer"] > 0.9).all() and (table["between"] > 0.9).all()
    assert (table["change_between"] == 0).all()
    assert (claim_table(weaker, strong)["change_between"] == 1).all()
    assert table["reads"].to_numpy() == pytest.approx(1)
    assert table["effective_rank_lora"].to_numpy() == pytest.approx(table["effective_rank_serial"])


def test_claims_need_one_base():
    lora, serial = two_adapters()
    other = [replace(change, weight=change.weight + 1) for change in lora]
    for wrong in (other, lora[:1], []):
        with pytest.raises(SerialLoRAError, match="one base"):
            claim_table(wrong, serial)
    with pytest.raises(SerialLoRAError, match="one base"):
        claim_table(lora, [])


# --- the command that makes the records ------------------------------------------------------


def pretend_subject(runs: list, rank: int = 2) -> Subject:
    """A subject whose adapters are random: what is tested is what happens around training."""
    torch.manual_seed(0)
    model = sam_encoder()

    def run(method, seed: int) -> Record:
        runs.append((method.name, seed))
        torch.manual_seed(seed)  # as the labs do: it decides A
        trained(model, method.config(rank))
        return Record(
            "sam",
            "tiny",
            "drawings",
            method.name,
            20,
            seed,
            rank,
            measures={"dice": 0.5},
            sizes={"parameters": sum(p.numel() for p in adapter_parameters(model))},
            seconds=1.0,
        )

    return Subject("sam", model, "drawings", 20, rank, {"lr": 0.1, "plus_lr": None}, run)


def test_records_hold_what_was_measured(tmp_path, capsys):
    runs = []
    subject = pretend_subject(runs)
    state = {name: value.clone() for name, value in subject.model.state_dict().items()}
    records = run_all([subject], [1, 2], tmp_path / "spectra.jsonl")
    assert runs == [
        (method, seed)
        for seed in (1, 2)
        for method in ("lora", "serial_lora", "lora_plus", "serial_lora_plus")
    ]
    after = subject.model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in after.items())
    assert [(r.method, r.seed) for r in records] == [
        (serial, seed) for seed in (1, 2) for serial in PAIRS
    ]
    assert records == read_records(tmp_path / "spectra.jsonl")
    _, own = subject.learn("serial_lora", 1)
    _, lora = subject.learn("lora", 1)
    table, frame = claim_table(lora, own), claim_frame(records[:1])
    assert frame[["tower", "block", "projection"]].equals(table[["tower", "block", "projection"]])
    assert (frame["lab"] == "sam").all() and (frame["method"] == "serial_lora").all()
    for name in table.columns[4:]:
        assert frame[name].to_numpy() == pytest.approx(table[name].to_numpy(), rel=1e-4)
    assert records[0].sizes == {"parameters": 2 * 2 * 2 * 32, "parameters_lora": 2 * 8 * 2 * 32}
    assert capsys.readouterr().out.count("sam serial_lora") == 4


def test_a_pair_that_is_there_is_not_trained_again(tmp_path):
    path = tmp_path / "spectra.jsonl"
    first = run_all([pretend_subject([])], [1], path)
    runs = []
    again = run_all([pretend_subject(runs)], [1, 2], path)
    assert again[:2] == first and {seed for _, seed in runs} == {2}
    other = []
    run_all([replace(pretend_subject(other), settings={"lr": 0.2})], [1], path)
    assert len(other) == 4


def test_a_file_that_cannot_be_written_is_said_before_training(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert main(["--out", str(tmp_path / "folder"), "--labs", "clip"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lab", "dataset", "amount", "sites"), [("clip", "symbols", 1, 10), ("sam", "food", 20, 6)]
)
def test_the_tiny_models_for_one_step(lab, dataset, amount, sites, tmp_path, monkeypatch):
    monkeypatch.setattr(sam, "evaluate", lambda backbone, data: [])  # no Dice is asked for here
    names = sam.MEASURES + sam.BOX_MEASURES
    monkeypatch.setattr(sam, "mean_scores", lambda scores: dict.fromkeys(names, 0.0))
    subject = SUBJECTS[lab](dataset, amount, epochs=1, min_steps=1, batch_size=2)
    records = run_all([subject], [1], tmp_path / "spectra.jsonl")
    frame = claim_frame(records)
    assert len(frame) == 2 * 3 * sites and frame["block"].nunique() == 6
    assert frame["between"].between(0, 1).all() and (frame["size_serial"] > 0).all()


# --- full size ---------------------------------------------------------------------------------


def vit_b_16():
    import transformers

    return transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)


def clip_vit_b_16():
    import open_clip

    return open_clip.create_model("ViT-B-16-quickgelu")


def sam_vit_b():
    from segment_anything import sam_model_registry

    return sam_model_registry["vit_b"]().image_encoder


def sd3_block():
    return sd3_transformer(layers=1, heads=24, head_width=64)


FULL_SIZE = {
    "vit": (vit_b_16, 768, (0, 11)),
    "clip": (clip_vit_b_16, 768, (0, 11)),
    "sam": (sam_vit_b, 768, (0, 11)),
    "sd3": (sd3_block, 1536, (0,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FULL_SIZE)
def test_full_size_models(family, method):
    build, width, blocks = FULL_SIZE[family]
    model = trained(build(), method(rank=64, towers=("image",), blocks=blocks))
    changes = weight_changes(model)
    table, frame = spectra_table(changes), spectra_frame(changes)
    assert (table["rank"] == 64).all()
    assert (frame.groupby(["site", "projection", "matrix"]).size().unstack()[WEIGHT] == width).all()
    change = changes[1]  # k of the first block
    assert int(torch.linalg.matrix_rank(change.change)) == 64
    again = frame[(frame["site"] == change.site) & (frame["projection"] == "k")]
    dense = torch.linalg.svdvals(change.change)[:64].numpy()
    assert np.allclose(again.loc[again["matrix"] == CHANGE, "value"], dense)


def test_one_block_of_a_full_size_vit(method):
    model = trained(vit_b_16(), method(rank=32, blocks=(11,)))
    changes = weight_changes(model)
    assert [c.projection for c in changes][:3] == ["q", "k", "v"]
    change = changes[0]
    assert change.weight.shape == (768, 768)
    fast = product_singular_values(change.left, change.right)
    dense = torch.linalg.svdvals(change.change)
    assert torch.allclose(fast, dense[:32]) and dense[32:].max() < 1e-12 * dense[0]
    assert numerical_rank(fast, 768) == 32
