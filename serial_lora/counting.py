"""How many numbers an adapter holds: by formula, by walking a model, and by counting tensors.

Three ways to the same number, on purpose. The *closed form* needs only a width, a depth and a
rank. The *enumeration* walks the attention blocks of a real model and adds up what an adapter of
that rank would hold there. The *injection* puts the adapters in and counts their elements. Models
are built on PyTorch's meta device (shapes without memory), so the 2-billion-parameter transformer
of Stable Diffusion 3 takes seconds and no download.

The second half compares the exact counts with what the paper prints (`audit`) and carries the
paper's tables as data (`paper_results`, `paper_table`, `inconsistencies`).

Source: "Serial Low-rank Adaptation of Vision Transformer" (ICME 2025), equations 1-3, Tables I-IV.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd
import torch
from torch import nn

from serial_lora.adapters import AdapterConfig, LoRA, LoRAConfig, SerialLoRA, SerialLoRAConfig
from serial_lora.attention import find_attention_sites
from serial_lora.errors import SerialLoRAError
from serial_lora.inject import inject

BYTES_PER_FLOAT32 = 4

# --------------------------------------------------------------------------- closed forms


def _positive(**numbers: int) -> None:
    """Refuse anything that is not a whole number of at least one."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise SerialLoRAError(
                f"{name} must be a whole number of at least 1, not {number!r}; choose another."
            )


def pair_count(inputs: int, outputs: int, rank: int) -> int:
    """Elements of one low-rank pair: A is (rank, inputs), B is (outputs, rank).

    Raises:
        SerialLoRAError: if a number is not a whole number of at least 1, or the rank is larger
            than the smaller side of the matrix it is meant to approximate.
    """
    _positive(inputs=inputs, outputs=outputs, rank=rank)
    if rank > min(inputs, outputs):
        raise SerialLoRAError(
            f"rank {rank} is above {min(inputs, outputs)}, the width it is meant to reduce; "
            "choose a smaller rank."
        )
    return rank * (inputs + outputs)


def serial_lora_count(width: int, depth: int, rank: int) -> int:
    """Serial LoRA's parameters: one pair a block, 2 * width * rank * depth (paper, eq. 3)."""
    _positive(depth=depth)
    return depth * pair_count(width, width, rank)


def lora_count(width: int, depth: int, rank: int) -> int:
    """LoRA's parameters with a pair on q, k, v and out: 8 * width * rank * depth (paper, eq. 2)."""
    _positive(depth=depth)
    return 4 * depth * pair_count(width, width, rank)


@dataclass(frozen=True)
class Tower:
    """A stack of attention blocks of one width.

    Attributes:
        name: what the tower reads, such as "image" or "text".
        width: the size of a token, d.
        depth: the number of attention blocks.
    """

    name: str
    width: int
    depth: int

    def serial_lora(self, rank: int) -> int:
        """Serial LoRA's parameters in this tower."""
        return serial_lora_count(self.width, self.depth, rank)

    def lora(self, rank: int) -> int:
        """LoRA's parameters in this tower."""
        return lora_count(self.width, self.depth, rank)


@dataclass(frozen=True)
class Architecture:
    """A real model, described by its towers and by how to build it on the meta device.

    Attributes:
        title: the model's name for people.
        towers: its stacks of attention blocks.
        rank: the rank that the paper uses, or a usual one where the paper does not use the model.
        build: builds the real class; called under `torch.device("meta")`.
        stream: which tokens are adapted, for models with two kinds of them (SD3).
        in_paper: whether Table I lists it.
    """

    title: str
    towers: tuple[Tower, ...]
    rank: int
    build: Callable[[], nn.Module] = field(repr=False)
    stream: str = "image"
    in_paper: bool = False

    def serial_lora(self, rank: int | None = None) -> int:
        """Serial LoRA's parameters, by the closed form, summed over the towers."""
        rank = self.rank if rank is None else rank
        return sum(tower.serial_lora(rank) for tower in self.towers)

    def lora(self, rank: int | None = None) -> int:
        """LoRA's parameters, by the closed form, summed over the towers."""
        rank = self.rank if rank is None else rank
        return sum(tower.lora(rank) for tower in self.towers)

    def on_meta(self) -> nn.Module:
        """Build the real model with shapes only: no weights, no memory, no download."""
        with torch.device("meta"):
            return self.build()


# --------------------------------------------------------------------------- real models


def _open_clip(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import open_clip

        return open_clip.CLIP(**open_clip.get_model_config(name))

    return build


def _segment_anything(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from segment_anything import sam_model_registry

        return sam_model_registry[name]()

    return build


def _sd3_medium() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name)

    return build


def _dinov2_base() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config())


ARCHITECTURES: dict[str, Architecture] = {
    "clip": Architecture(
        "CLIP ViT-B/16, both towers",
        (Tower("image", 768, 12), Tower("text", 512, 12)),
        rank=32,
        build=_open_clip("ViT-B-16-quickgelu"),
        in_paper=True,
    ),
    "sam": Architecture(
        "SAM ViT-B, image encoder",
        (Tower("image", 768, 12),),
        rank=64,
        build=_segment_anything("vit_b"),
        in_paper=True,
    ),
    "sd3": Architecture(
        "SD3 medium, image stream",
        (Tower("image", 1536, 24),),
        rank=64,
        build=_sd3_medium,
        in_paper=True,
    ),
    "clip-large": Architecture(
        "CLIP ViT-L/14, both towers",
        (Tower("image", 1024, 24), Tower("text", 768, 12)),
        rank=32,
        build=_open_clip("ViT-L-14-quickgelu"),
    ),
    "sam-huge": Architecture(
        "SAM ViT-H, image encoder",
        (Tower("image", 1280, 32),),
        rank=64,
        build=_segment_anything("vit_h"),
    ),
    "vit-base": Architecture(
        "ViT-B/16 (timm)",
        (Tower("image", 768, 12),),
        rank=16,
        build=_timm("vit_base_patch16_224"),
    ),
    "dinov2-base": Architecture(
        "DINOv2 ViT-B/14 (transformers)",
        (Tower("image", 768, 12),),
        rank=16,
        build=_dinov2_base,
    ),
}
"""The real models that lessons and tests count. The first three are the paper's Table I."""


def architecture(key: str) -> Architecture:
    """Look up one of `ARCHITECTURES`, with a clear error for a name that is not there."""
    if key not in ARCHITECTURES:
        raise SerialLoRAError(
            f"there is no architecture {key!r}; choose one of {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[key]


# --------------------------------------------------------------------------- counting a model


@dataclass(frozen=True)
class ParameterCount:
    """What a model holds.

    Attributes:
        trainable: elements of the parameters that require gradients.
        total: elements of all parameters, adapters included.
        adapter: elements of the injected adapters' parameters.
        adapter_bytes: bytes of those, at the precision they are kept in.
    """

    trainable: int
    total: int
    adapter: int
    adapter_bytes: int

    @property
    def share(self) -> float:
        """Trainable parameters as a share of all."""
        return self.trainable / self.total if self.total else 0.0

    def __str__(self) -> str:
        return (
            f"{self.trainable:,} of {self.total:,} parameters are trainable ({self.share:.2%}); "
            f"the adapters hold {self.adapter:,} ({self.adapter_bytes:,} bytes)"
        )


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters; each shared tensor once. Works with and without adapters."""
    parameters = list(model.parameters())
    adapter = {
        id(parameter): parameter
        for module in model.modules()
        if isinstance(module, (LoRA, SerialLoRA))
        for parameter in module.parameters()
    }.values()
    return ParameterCount(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters),
        adapter=sum(p.numel() for p in adapter),
        adapter_bytes=sum(p.numel() * p.element_size() for p in adapter),
    )


# --------------------------------------------------------------------------- the proof


def enumerate_count(model: nn.Module, config: AdapterConfig) -> int:
    """What adapters of this config would hold, read off the model's own weights.

    Walks the attention blocks that `inject` would adapt and adds up a pair for each: Serial LoRA's
    is as wide as the tokens, LoRA's are shaped like the projections they stand beside.

    Raises:
        SerialLoRAError: if the model has no known attention, or the rank is above a width.
    """
    sites = find_attention_sites(
        model, towers=config.towers, blocks=config.blocks, stream=config.stream
    )
    if config.method == "serial_lora":
        return sum(pair_count(site.width, site.width, config.rank) for site in sites)
    return sum(
        pair_count(projection.columns, projection.rows, config.rank)
        for site in sites
        for projection in site.projections.values()
    )


@dataclass(frozen=True)
class Proof:
    """One method on one model, counted three ways.

    Attributes:
        model: key of `ARCHITECTURES`.
        method: "lora" or "serial_lora".
        rank: of every pair.
        closed_form: by the formula.
        enumerated: by walking the model's attention blocks.
        injected: elements of the tensors that `inject` put into the model.
    """

    model: str
    method: str
    rank: int
    closed_form: int
    enumerated: int
    injected: int

    @property
    def agrees(self) -> bool:
        """Whether the three counts are one number."""
        return self.closed_form == self.enumerated == self.injected


def prove(key: str, rank: int | None = None) -> tuple[Proof, Proof]:
    """Count LoRA and Serial LoRA on one of `ARCHITECTURES`, three ways each.

    The real model is built on the meta device, so this takes no memory and about a second.

    Returns:
        LoRA's proof and Serial LoRA's.
    """
    item = architecture(key)
    rank = item.rank if rank is None else rank
    proofs = []
    for kind, closed_form in ((LoRAConfig, item.lora), (SerialLoRAConfig, item.serial_lora)):
        config = kind(rank=rank, stream=item.stream)
        expected = closed_form(rank)  # refuses a rank above the width before a model is built
        model = item.on_meta()
        enumerated = enumerate_count(model, config)
        with torch.device("meta"):
            inject(model, config)
        count = count_parameters(model).adapter
        proofs.append(Proof(key, config.method, rank, expected, enumerated, count))
    return tuple(proofs)


def proof_frame(keys: Iterable[str] = ("clip", "sam", "sd3")) -> pd.DataFrame:
    """`prove` as a table: one row a model, the two methods' counts and their ratio."""
    rows = []
    for key in keys:
        lora, serial = prove(key)
        rows.append(
            {
                "model": ARCHITECTURES[key].title,
                "rank": lora.rank,
                "LoRA: formula": lora.closed_form,
                "LoRA: walked": lora.enumerated,
                "LoRA: injected": lora.injected,
                "Serial LoRA: formula": serial.closed_form,
                "Serial LoRA: walked": serial.enumerated,
                "Serial LoRA: injected": serial.injected,
                "ratio": lora.injected / serial.injected,
                "all agree": lora.agrees and serial.agrees,
            }
        )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------- the ratio


@dataclass(frozen=True)
class Baseline:
    """A way to put LoRA on one attention block: which matrices get a pair, and of what shape.

    Attributes:
        name: what is adapted.
        shapes: for a width d, the (inputs, outputs) of every matrix that gets a pair.
        note: who does it this way.
    """

    name: str
    shapes: Callable[[int], list[tuple[int, int]]] = field(repr=False)
    note: str = ""

    def count(self, width: int, rank: int) -> int:
        """Parameters in one block."""
        return sum(pair_count(inputs, outputs, rank) for inputs, outputs in self.shapes(width))

    def ratio(self, width: int, rank: int) -> float:
        """How many times Serial LoRA's parameters this baseline has, at the same rank."""
        return self.count(width, rank) / serial_lora_count(width, 1, rank)


BASELINES: tuple[Baseline, ...] = (
    Baseline(
        "q, k, v and out, a pair each",
        lambda d: [(d, d)] * 4,
        "the paper's baseline (Fig. 1, eq. 2)",
    ),
    Baseline("q, k and v, a pair each", lambda d: [(d, d)] * 3, "CLIP-LoRA's default"),
    Baseline("q and v, a pair each", lambda d: [(d, d)] * 2, "LoRA's own experiments"),
    Baseline(
        "fused qkv, one pair",
        lambda d: [(d, 3 * d)],
        "PEFT on a linear layer named qkv: A is shared by q, k and v",
    ),
    Baseline(
        "fused qkv, one pair, and out",
        lambda d: [(d, 3 * d), (d, d)],
        "PEFT on torch.nn.MultiheadAttention",
    ),
    Baseline(
        "q, k, v and out, four query heads to one key head",
        lambda d: [(d, d), (d, d // 4), (d, d // 4), (d, d)],
        "grouped-query attention: k and v are rectangular",
    ),
    Baseline(
        "q, k, v and out, attention half as wide as the tokens",
        lambda d: [(d, d // 2)] * 3 + [(d // 2, d)],
        "an inner width that differs from the token width",
    ),
)
"""Ways to place LoRA on a block. Only the first is exactly four times Serial LoRA."""


def ratio_frame(width: int = 768, rank: int = 32) -> pd.DataFrame:
    """LoRA's size over Serial LoRA's in one block, under every placement of `BASELINES`.

    The last row keeps the paper's placement and gives LoRA a quarter of the rank: equal budget.
    """
    serial = serial_lora_count(width, 1, rank)
    rows = [
        (b.name, rank, b.count(width, rank), serial, b.ratio(width, rank), b.note)
        for b in BASELINES
    ]
    quarter = max(1, rank // 4)
    count = lora_count(width, 1, quarter)
    note = "LoRA at Serial LoRA's budget"
    rows.append((BASELINES[0].name, quarter, count, serial, count / serial, note))
    columns = ["LoRA on", "rank", "LoRA", "Serial LoRA", "ratio", "who does this"]
    return pd.DataFrame(rows, columns=columns)


# --------------------------------------------------------------------------- the paper as data


@cache
def _asset(name: str) -> dict[str, Any]:
    asset = resources.files("serial_lora") / "assets" / name
    return json.loads(asset.read_text(encoding="utf-8"))


def paper() -> dict[str, Any]:
    """The paper's title, authors, venue, year and arXiv number."""
    return dict(_asset("paper_tables.json")["paper"])


def paper_settings() -> pd.DataFrame:
    """The hyper-parameters that the paper states, one row a model."""
    return pd.DataFrame(_asset("paper_tables.json")["settings"])


def paper_results() -> pd.DataFrame:
    """Tables II-IV in long form.

    Columns: where, model, dataset, method, amount, metric, better ("higher" or "lower", as the
    paper says), value. Nothing is corrected.
    """
    return pd.DataFrame(_asset("paper_tables.json")["results"])


METHOD_TITLES = {
    "lora": "LoRA",
    "serial_lora": "Serial LoRA",
    "lora_plus": "LoRA+",
    "serial_lora_plus": "Serial LoRA+",
    "lora_equal_budget": "LoRA at equal budget",
}
"""How people write the methods' names; the last one is ours, not the paper's."""


def paper_table(where: str) -> pd.DataFrame:
    """One of "Table II", "Table III" and "Table IV", laid out as the paper lays it out."""
    results = paper_results()
    rows = results[results["where"] == where]
    if rows.empty:
        known = ", ".join(sorted(set(results["where"])))
        raise SerialLoRAError(f"there is no {where!r} among the results; choose one of {known}.")
    columns = ["dataset"] if rows["metric"].nunique() == 1 else ["dataset", "metric"]
    order = [tuple(pair) for pair in rows[["amount", "method"]].drop_duplicates().to_numpy()]
    wide = rows.pivot(index=["amount", "method"], columns=columns, values="value").loc[order]
    named = [(amount, METHOD_TITLES[method]) for amount, method in wide.index]
    wide.index = pd.MultiIndex.from_tuples(named, names=["amount", "method"])
    return wide


# --------------------------------------------------------------------------- the audit

READINGS: dict[str, Callable[[int], float]] = {
    "millions of parameters": lambda n: n / 1e6,
    "units of 1024 x 1000 parameters": lambda n: n / (1024 * 1000),
    "units of 1024 x 1024 parameters": lambda n: n / 1024**2,
    "float32 bytes in MB": lambda n: 4 * n / 1e6,
    "float32 bytes in MiB": lambda n: 4 * n / 1024**2,
    "bfloat16 bytes in MB": lambda n: 2 * n / 1e6,
    "bfloat16 bytes in MiB": lambda n: 2 * n / 1024**2,
}
"""Every unit in which a count could plausibly have been printed."""

_EXPECTED_READING = {"M": "millions of parameters", "MB": "float32 bytes in MB"}


@dataclass(frozen=True)
class AuditRow:
    """One printed figure beside the exact count.

    Attributes:
        model, method: as in `ARCHITECTURES` and the paper.
        exact: the closed form's count.
        printed, unit, where: what the paper prints, and where.
        readings: the exact count in every unit of `READINGS`.
        matches: the units in which it rounds to the printed figure.
        kind: "right", "unit" (right number, wrong unit) or "unexplained".
        verdict: that, in a sentence made from the numbers.
    """

    model: str
    method: str
    exact: int
    printed: float
    unit: str
    where: str
    readings: dict[str, float] = field(repr=False)
    matches: tuple[str, ...]
    kind: str
    verdict: str


def _decimals(printed: float) -> int:
    return len(repr(printed).partition(".")[2])


def _rounds_to(value: float, printed: float) -> bool:
    """Whether `value`, rounded to the digits printed, is the printed figure."""
    return abs(value - printed) <= 0.5 * 10 ** -max(2, _decimals(printed)) + 1e-12


def _numeric_fit(item: Architecture, method: str) -> int:
    """(2 * rank + 3) * width for every pair: fits SD3's figures; nothing in the method says so."""
    pairs = 4 if method == "lora" else 1
    return sum((2 * item.rank + 3) * t.width * t.depth * pairs for t in item.towers)


def _twin(key: str, printed: float) -> str:
    """A remark when the printed figure is another model's exact count in millions."""
    for other, item in ARCHITECTURES.items():
        if other == key or not item.in_paper:
            continue
        for method, count in (("LoRA", item.lora()), ("Serial LoRA", item.serial_lora())):
            if _rounds_to(count / 1e6, printed):
                return f" (The same digits are {method}'s exact count on {item.title}: {count:,}.)"
    return ""


def _judge(key: str, method: str, exact: int, row: dict[str, Any]) -> tuple[str, str]:
    """Kind and verdict of one printed figure."""
    printed, unit = row["printed"], row["unit"]
    matches = [name for name, reading in READINGS.items() if _rounds_to(reading(exact), printed)]
    if _EXPECTED_READING[unit] in matches:
        return "right", f"Right as printed: {exact:,} parameters are {printed} {unit}."
    if matches:
        reading = matches[0]
        return "unit", (
            f"The number is right and its unit is not: {exact:,} parameters are "
            f"{READINGS[_EXPECTED_READING[unit]](exact):.2f} {unit}; "
            f"counted as {reading} they are {printed}." + _twin(key, printed)
        )
    value = READINGS[_EXPECTED_READING[unit]](exact)
    verdict = (
        f"Not explained: {exact:,} parameters are {value:.2f} {unit}; "
        f"the paper prints {printed} ({printed / value - 1:+.1%})."
    )
    fit = _numeric_fit(ARCHITECTURES[key], method)
    if _rounds_to(fit / 1e6, printed):
        verdict += (
            f" (2r + 3) d a pair gives {fit:,} and would fit, but nothing in the method "
            "holds three further vectors."
        )
    return "unexplained", verdict


def audit() -> list[AuditRow]:
    """Every parameter figure that the paper prints, beside the exact count and a verdict.

    The verdicts are computed: a figure is compared with the exact count in each unit of
    `READINGS`, at the digits printed.
    """
    rows = []
    for row in _asset("paper_tables.json")["parameters"]:
        item = ARCHITECTURES[row["model"]]
        exact = item.lora() if row["method"] == "lora" else item.serial_lora()
        readings = {name: reading(exact) for name, reading in READINGS.items()}
        kind, verdict = _judge(row["model"], row["method"], exact, row)
        rows.append(
            AuditRow(
                **row,
                exact=exact,
                readings=readings,
                matches=tuple(n for n, v in readings.items() if _rounds_to(v, row["printed"])),
                kind=kind,
                verdict=verdict,
            )
        )
    return rows


def audit_frame() -> pd.DataFrame:
    """`audit` as a table to show."""
    return pd.DataFrame(
        [
            {
                "model": ARCHITECTURES[row.model].title,
                "method": METHOD_TITLES[row.method],
                "exact count": row.exact,
                "printed": f"{row.printed:.2f}{row.unit}",
                "where": row.where,
                "matches as": "; ".join(row.matches) or "none tried",
                "verdict": row.verdict,
            }
            for row in audit()
        ]
    )


def readings_frame(mark: bool = False) -> pd.DataFrame:
    """The exact counts in every plausible unit, beside the printed figure; one row a figure.

    Args:
        mark: whether to give text for a Markdown table, at the digits that the paper prints, with
            every reading in bold that rounds to the printed figure.
    """
    rows = []
    for row in audit():
        readings = {name: round(value, 3) for name, value in row.readings.items()}
        if mark:
            readings = {
                name: f"**{value:.2f}**" if name in row.matches else f"{value:.2f}"
                for name, value in row.readings.items()
            }
        name = ARCHITECTURES[row.model].title.partition(",")[0] if mark else row.model
        place = {"where": row.where} if mark else {}
        printed = f"{row.printed:.2f} {row.unit}" if mark else f"{row.printed:.2f}{row.unit}"
        rows.append(
            {"model": name, "method": METHOD_TITLES[row.method], **place, "printed": printed}
            | readings
        )
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


# --------------------------------------------------------------------------- inconsistencies


def _cells(metric: str) -> pd.DataFrame:
    """One metric of the paper: rows (amount, dataset), one column a method."""
    results = paper_results()
    rows = results[results["metric"] == metric]
    return rows.pivot(index=["amount", "dataset"], columns="method", values="value")


def _series(metric: str, method: str, dataset: str, amounts: Iterable[str]) -> str:
    cells = _cells(metric)
    return ", ".join(f"{cells.loc[(amount, dataset), method]:g}" for amount in amounts)


def paper_facts() -> dict[str, Any]:
    """Numbers about the paper's tables that the prose of `inconsistencies` needs, computed."""
    results = paper_results()
    datasets = results.groupby("model")["dataset"].nunique()
    clip, dice, fid = _cells("accuracy_percent"), _cells("dice_as_printed"), _cells("fid")
    printed = {(r.model, r.method, r.unit): r.printed for r in audit()}
    sd3 = ARCHITECTURES["sd3"]
    fifth = dice.loc["20%"]
    facts: dict[str, Any] = {
        "tabulated_datasets": int(datasets.sum()),
        "sam_blocks": ARCHITECTURES["sam"].towers[0].depth,
        "sd3_excess": printed["sd3", "lora", "M"] * 1e6 / sd3.lora() - 1,
        "sam_lora_bytes": ARCHITECTURES["sam"].lora() * BYTES_PER_FLOAT32,
        "pie_full_lora": f"{dice.loc[('100%', 'pie'), 'lora']:.4f} (LoRA, pie, all data)",
        "serial_plus_best_20": int((fifth.idxmin(axis=1) == "serial_lora_plus").sum()),
        "lora_plus_below": int((clip["lora_plus"] < clip["lora"]).sum()),
        "serial_behind_clip": int((clip["serial_lora"] < clip["lora"]).sum()),
        "serial_behind_sam": int((dice["serial_lora"] > dice["lora"]).sum()),
        "serial_behind_fid": int((fid["serial_lora"] > fid["lora"]).sum()),
        "clip_cells": len(clip),
        "sam_cells": len(dice),
        "fid_cells": len(fid),
        "eurosat_serial": clip.loc[("16 shot", "eurosat"), "serial_lora"],
        "eurosat_lora": clip.loc[("16 shot", "eurosat"), "lora"],
        "food_lora_plus": _series(
            "accuracy_percent", "lora_plus", "food101", ("1 shot", "4 shot", "16 shot")
        ),
        "flood_lora": _series("dice_as_printed", "lora", "flood", ("20%", "50%", "100%")),
    }
    for key in ("clip", "sam", "sd3"):
        facts[f"{key}_datasets"] = int(datasets[key])
        facts[f"{key}_lora"] = ARCHITECTURES[key].lora()
        facts[f"{key}_serial"] = ARCHITECTURES[key].serial_lora()
        facts[f"{key}_lora_printed"] = f"{printed[key, 'lora', 'M']:.2f}"
        facts[f"{key}_serial_printed"] = f"{printed[key, 'serial_lora', 'M']:.2f}"
    return facts


def inconsistencies() -> list[dict[str, str]]:
    """What the paper prints that does not fit together.

    Each entry has `key`, `kind` (unit, count, metric, data, figure, claim or method), `where` in
    the paper, what it `says` (in our words) and the `finding`. Numbers in the sentences are
    computed from the paper's own tables and the exact counts.
    """
    facts = paper_facts()
    return [
        {name: text.format(**facts) for name, text in entry.items()}
        for entry in _asset("audit.json")["inconsistencies"]
    ]


def inconsistency_frame() -> pd.DataFrame:
    """`inconsistencies` as a table to show."""
    return pd.DataFrame(inconsistencies())[["where", "says", "finding"]]
