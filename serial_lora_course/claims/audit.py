"""The paper against itself: its printed counts beside exact ones, and what does not fit together.

Numbers in the sentences are computed from the paper's own tables and the exact counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd

from serial_lora.counting import BYTES_PER_FLOAT32
from serial_lora_course.claims.paper import paper_facts
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.models.architectures import ARCHITECTURES, Architecture
from serial_lora_course.paper_tables import printed_parameters

# --------------------------------------------------------------------------- printed counts

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
class PrintedCount:
    """One parameter figure of the paper, beside the exact count.

    Attributes:
        model, method: as in `ARCHITECTURES` and the paper.
        printed, unit, where: what the paper prints ("M" or "MB"), and where.
    """

    model: str
    method: str
    printed: float
    unit: str
    where: str

    @property
    def exact(self) -> int:
        """The closed form's count."""
        return _exact(ARCHITECTURES[self.model])[self.method]

    @property
    def readings(self) -> dict[str, float]:
        """The exact count in every unit of `READINGS`."""
        return {name: reading(self.exact) for name, reading in READINGS.items()}

    @property
    def matches(self) -> tuple[str, ...]:
        """The units in which the exact count rounds to the printed figure."""
        return tuple(name for name, value in self.readings.items() if self._is_printed(value))

    @property
    def kind(self) -> str:
        """ "right", "unit" (right number, wrong unit) or "unexplained"."""
        if _EXPECTED_READING[self.unit] in self.matches:
            return "right"
        return "unit" if self.matches else "unexplained"

    @property
    def verdict(self) -> str:
        """The kind in a sentence made from the numbers."""
        exact, printed, unit = self.exact, self.printed, self.unit
        value = self.readings[_EXPECTED_READING[unit]]
        if self.kind == "right":
            return f"Right as printed: {exact:,} parameters are {printed} {unit}."
        if self.kind == "unit":
            return (
                f"The number is right and its unit is not: {exact:,} parameters are {value:.2f} "
                f"{unit}; counted as {self.matches[0]} they are {printed}.{self._twin()}"
            )
        return (
            f"Not explained: {exact:,} parameters are {value:.2f} {unit}; the paper prints "
            f"{printed} ({printed / value - 1:+.1%}).{self._numeric_fit()}"
        )

    def _is_printed(self, value: float) -> bool:
        """Whether a value, rounded to the two digits that the paper prints, is this figure."""
        return abs(value - self.printed) <= 0.005 + 1e-12

    def _twin(self) -> str:
        """A remark when the printed figure is another model's exact count in millions."""
        for key, item in ARCHITECTURES.items():
            for method, count in _exact(item).items():
                if key != self.model and item.in_paper and self._is_printed(count / 1e6):
                    title = METHOD_TITLES[method]
                    return (
                        f" (The same digits are {title}'s exact count on {item.title}: {count:,}.)"
                    )
        return ""

    def _numeric_fit(self) -> str:
        """A remark when three more vectors a pair would give the figure, as they do for SD3."""
        item = ARCHITECTURES[self.model]
        pairs = 4 if self.method == "lora" else 1
        fit = sum((2 * item.rank + 3) * t.width * t.depth * pairs for t in item.towers)
        if not self._is_printed(fit / 1e6):
            return ""
        return (
            f" (2r + 3) d a pair gives {fit:,} and would fit, but nothing in the method holds three "
            "further vectors."
        )


def _exact(item: Architecture) -> dict[str, int]:
    return {"lora": item.lora(), "serial_lora": item.serial_lora()}


def audit() -> list[PrintedCount]:
    """Every parameter figure that the paper prints, beside the exact count and a verdict."""
    return [PrintedCount(**row) for row in printed_parameters().to_dict("records")]


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


def readings_frame() -> pd.DataFrame:
    """The exact counts in every plausible unit, as text for a Markdown table; one row a figure.

    Numbers have the digits that the paper prints; those that round to the printed figure are bold.
    """
    return pd.DataFrame(
        [
            {
                "model": ARCHITECTURES[row.model].title.partition(",")[0],
                "method": METHOD_TITLES[row.method],
                "where": row.where,
                "printed": f"{row.printed:.2f} {row.unit}",
            }
            | {
                name: f"**{value:.2f}**" if name in row.matches else f"{value:.2f}"
                for name, value in row.readings.items()
            }
            for row in audit()
        ]
    )


# --------------------------------------------------------------------------- inconsistencies


@dataclass(frozen=True)
class Inconsistency:
    """What the paper prints that does not fit together.

    Attributes:
        key: a short name.
        where: section, table or figure of the paper.
        says: what it says there, in our words.
        finding: what we find.
    """

    key: str
    where: str
    says: str
    finding: str


def inconsistencies() -> list[Inconsistency]:
    """What the paper prints that does not fit together."""
    facts = paper_facts()
    clip, sam, sd3 = (ARCHITECTURES[key] for key in ("clip", "sam", "sd3"))
    depth = sam.towers[0].depth
    excess = float(facts["sd3_lora_printed"]) * 1e6 / sd3.lora() - 1
    three_more = sum(3 * tower.width * tower.depth for tower in sd3.towers)  # in each pair
    return [
        Inconsistency(
            "clip-unit",
            "Table I; Table III",
            f"CLIP is listed with {facts['clip_lora_printed']}M and "
            f"{facts['clip_serial_printed']}M parameters.",
            f"The exact counts are {clip.lora():,} and {clip.serial_lora():,}. Divided by 1024 "
            "x 1000, an odd unit, they are the printed figures to the last digit.",
        ),
        Inconsistency(
            "sam-unit",
            "Table I; Table IV",
            f"Table I lists SAM with {facts['sam_lora_printed']}M parameters, Table IV's "
            f"caption says {facts['sam_lora_printed']}MB.",
            f"The exact count is {sam.lora():,} parameters, which is "
            f"{sam.lora() * BYTES_PER_FLOAT32:,} bytes in float32. Table IV's unit is right, "
            "Table I's is not.",
        ),
        Inconsistency(
            "sd3-count",
            "Table I; Table II",
            f"SD3 is listed with {facts['sd3_lora_printed']}M and "
            f"{facts['sd3_serial_printed']}M parameters.",
            f"The exact counts for the image stream are {sd3.lora():,} and "
            f"{sd3.serial_lora():,}. The paper prints {excess:.1%} more. With 3 d further parameters "
            f"in each pair, as a LayerNorm and a bias have, it would be {sd3.lora() + 4 * three_more:,} and "
            f"{sd3.serial_lora() + three_more:,}, which are the printed figures: a candidate, not a proof.",
        ),
        Inconsistency(
            "dice-direction",
            "Section III.C; Table IV",
            "A lower Dice score means a more accurate mask.",
            "The Dice coefficient of the work it cites grows with overlap, so higher is "
            "better. The table is plausibly a Dice loss, perhaps with cross-entropy added; "
            "its numbers cannot tell which.",
        ),
        Inconsistency(
            "dataset-count",
            "Abstract; Section I",
            "The experiments cover 24 data sets.",
            f"The tables hold {facts['tabulated_datasets']}: {facts['sd3_datasets']} for SD3, "
            f"{facts['clip_datasets']} for CLIP and {facts['sam_datasets']} for SAM. DTD "
            "appears in Fig. 5 only.",
        ),
        Inconsistency(
            "eight-each",
            "Sections III.A, III.B, III.C",
            "Each of the three tasks is said to use eight data sets.",
            f"The sentences that follow list {facts['sd3_datasets']}, {facts['clip_datasets']} "
            f"and {facts['sam_datasets']}.",
        ),
        Inconsistency(
            "sam-depth",
            "Fig. 2",
            "SAM's encoder is drawn with 11 blocks.",
            f"ViT-B has {depth} blocks, and only {depth} give the printed size.",
        ),
        Inconsistency(
            "dice-digits",
            "Fig. 1; Table IV",
            "Fig. 1 shows a Dice of 0.256.",
            f"The entry of Table IV nearest to what it shows is {facts['pie_full_lora']} "
            "(LoRA, pie, all data).",
        ),
        Inconsistency(
            "few-sample-claim",
            "Section III.C",
            "Serial LoRA+ is the best method when samples are few.",
            f"At 20% of the data it is best on {facts['serial_plus_best_20']} of "
            f"{facts['sam_datasets']} data sets.",
        ),
        Inconsistency(
            "lora-plus-clip",
            "Table III",
            "LoRA+ is used as the stronger baseline.",
            f"LoRA+ is below plain LoRA in {facts['lora_plus_below']} of {facts['clip_cells']} "
            f"cells, and its Food101 accuracy falls as shots grow ({facts['food_lora_plus']}). "
            "The text does not discuss it.",
        ),
        Inconsistency(
            "consistent-superiority",
            "Abstract; Tables II-IV",
            "The results confirm a consistent superiority.",
            f"Serial LoRA is behind LoRA in {facts['serial_behind_clip']} of "
            f"{facts['clip_cells']} CLIP cells (16-shot EuroSAT: {facts['eurosat_serial']} "
            f"against {facts['eurosat_lora']}), in {facts['serial_behind_sam']} of "
            f"{facts['sam_cells']} SAM cells and in {facts['serial_behind_fid']} of "
            f"{facts['fid_cells']} FID cells.",
        ),
        Inconsistency(
            "sam-monotone",
            "Table IV",
            "More data is expected to help.",
            f"Some rows get worse with more data: LoRA on Flood reads {facts['flood_lora']} at "
            "20%, 50% and 100%.",
        ),
        Inconsistency(
            "no-spread",
            "Tables II-IV",
            "One number a cell.",
            "No zero-shot accuracy, no unadapted model and no spread over seeds is given, so "
            "small differences cannot be judged.",
        ),
        Inconsistency(
            "caltech-classes",
            "Section III.B",
            "Caltech101 with 101 classes.",
            "The few-shot splits this literature uses have 100 classes.",
        ),
        Inconsistency(
            "human-masks",
            "Section III.C",
            "Human segmentation from Stanford 40 Actions.",
            "That set comes with bounding boxes and no masks; where the masks came from is "
            "not said.",
        ),
        Inconsistency(
            "flood-track",
            "Section III.C, footnote 3",
            "Flood segmentation from the linked FloodNet page.",
            "The link is the semi-supervised track, whose pictures are mostly unlabelled, and "
            "which classes count as flood is not said.",
        ),
        Inconsistency(
            "artbench-link",
            "Section III.A, footnote 2",
            "A link to ArtBench.",
            "The account name in the address is misspelt, so the link does not open the data set.",
        ),
        Inconsistency(
            "square-weights",
            "Equations 1 and 3",
            "A_s is r x d2 and B_s is d1 x r.",
            "I + B_s A_s exists only when d1 = d2, the width of the tokens.",
        ),
        Inconsistency(
            "memory-words",
            "Section III.A",
            "The memory footprint falls from 19.32M to 4.83M parameters.",
            "Those are parameters. Memory in training is mostly activations, which sharing a "
            "pair does not cut to a quarter.",
        ),
        Inconsistency(
            "quarter-baseline",
            "Abstract; Table I",
            "Serial LoRA has 1/4 of LoRA's parameters.",
            "True against a baseline that adapts q, k, v and the output projection. Against "
            "q, k, v only, a common default, it is 1/3.",
        ),
        Inconsistency(
            "rank-figure",
            "Fig. 5",
            "Accuracy over ranks 8 to 64.",
            "The number of shots and the scaling of the update with rank are not stated.",
        ),
    ]


def inconsistency_frame(keys: Collection[str] | None = None) -> pd.DataFrame:
    """`inconsistencies` as a table to show; only those of some keys where these are given."""
    return pd.DataFrame(
        [
            {"Where": each.where, "The paper says": each.says, "What we find": each.finding}
            for each in inconsistencies()
            if keys is None or each.key in keys
        ]
    )
