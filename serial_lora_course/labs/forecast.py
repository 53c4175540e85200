"""What a lab's command will take, before any of it starts: runs, steps, drawings, hours, memory, disk.

    runs = forecast("clip", ["food101"], ["lora", "serial_lora"], [16], scale="paper", card="h100")
    sum(run.seconds for run in runs if not run.done) / 3600

At the paper's scale nothing is loaded, neither weights nor pictures: models are shapes, and how many
pictures a set has is what its publisher says (`PUBLISHED`). Products are counted in a step of such a
model, and memory as `labs/fit.py` counts it. Seconds are arithmetic on what the card's maker says of it,
and never a measurement: expect between half and twice as many. Reading prompts and encoding SD3's
pictures, once for each set, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora.injection import inject
from serial_lora_course.labs.card import GIB
from serial_lora_course.labs.config import LabConfig
from serial_lora_course.labs.fit import clip_shapes, sd3_inputs, step_bytes
from serial_lora_course.labs.grid import Run, make_grid
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.memory import without_values
from serial_lora_course.labs.memory_sd3 import AUTOENCODER, sd3_part
from serial_lora_course.labs.methods import METHODS, Method
from serial_lora_course.labs.precision import product_seconds
from serial_lora_course.labs.progress import in_words
from serial_lora_course.labs.records import Record, read_records
from serial_lora_course.measures.counts import BYTES_PER_FLOAT32
from serial_lora_course.models.architectures import ARCHITECTURES

NOT_ADAPTED = "not adapted"
RECORD_BYTES = 3000  # a line of JSON
STATE_COPIES = (
    3  # of what is trained, in the state of a run that is not finished: it, AdamW's averages
)


@dataclass(frozen=True)
class RunForecast:
    """One run; or, of the method `NOT_ADAPTED`, what is measured once for a data set.

    Attributes:
        done: its record is there. Settings are compared, pictures and weights are not.
        steps: of the optimizer.
        drawings: pictures that are drawn to be measured.
        tests: pictures that are looked at to be measured.
        parameters: that are trained.
        seconds: on the card that was named, estimated.
        memory: bytes on the card in a training step, estimated.
        disk: bytes that stay when the run is finished: its record, and its adapter if adapters are kept.
        state: bytes of the state that an interrupted run leaves.
    """

    dataset: str
    method: str
    done: bool
    memory: int
    drawings: int = 0
    tests: int = 0
    rank: int = 0
    amount: int = 0
    seed: int = 0
    steps: int = 0
    parameters: int = 0
    seconds: float = 0.0
    disk: int = 0
    state: int = 0


# ------------------------------------------------------------------------------------------ cards


@dataclass(frozen=True)
class Speed:
    """What a card's maker says of it, without sparsity.

    Attributes:
        half, single: products and sums a second in bfloat16 (summed in float32) and in float32.
        memory: bytes; 0 where it is the machine's.
        reached: the share of it that a step of large products between small operations reaches; assumed.
    """

    name: str
    half: float
    single: float
    memory: int
    reached: float = 0.35


CARDS = {
    key: Speed(name, half * 1e12, single * 1e12, memory * GIB)
    for key, name, half, single, memory in (
        ("t4", "Tesla T4", 8.1, 8.1, 16),  # has no bfloat16
        ("l4", "L4", 121, 30.3, 24),
        ("rtx3090", "GeForce RTX 3090", 71, 35.6, 24),  # the paper's
        ("rtx4090", "GeForce RTX 4090", 165, 82.6, 24),
        ("a100", "A100", 312, 19.5, 80),
        ("h100", "H100", 989, 67, 80),
        ("h200", "H200", 989, 67, 141),
    )
}
# Assumed, and measured nowhere:
OPERATION_SECONDS = 1e-5  # that sending one operation to a GPU takes at least
PICTURE_SECONDS = {"clip": 0.01, "sam": 0.05, "sd3": 0.0}  # to read and prepare one, on a core
CORES = 8  # that prepare pictures beside the GPU


def card_named(name: str | None) -> Speed:
    """A card of `CARDS`; None for the GPU of this machine if it is one of them, else for its processor.

    Raises:
        SerialLoRAError: there is no such card.
    """
    if name is None and torch.cuda.is_available():
        here = torch.cuda.get_device_name().lower().replace(" ", "")
        name = next((key for key in CARDS if key in here), "rtx3090")
    if name in (None, "cpu"):
        return _this_processor()
    require_choice("card", name, ["cpu", *CARDS])
    return CARDS[name]


def _this_processor(rows: int = 512, width: int = 512) -> Speed:
    """Products that this process computes in a moment, in each precision."""
    single, half = (2 * rows * width**2 / each for each in product_seconds(rows, width))
    name = f"this processor, {torch.get_num_threads()} threads"
    return Speed(name, max(single, half), single, memory=0, reached=0.2)


# ------------------------------------------------------------------------------- sizes of data sets


@dataclass(frozen=True)
class Published:
    """How many pictures a set of the paper's scale has, as its publisher and its split say.

    Attributes:
        classes: of a classification set.
        assumed: what is, where that is not published.
    """

    train: int
    test: int
    classes: int = 0
    assumed: str = ""


_DIVIDED = "every picture of it counted, and divided 7 to 3 as all of FoodSeg103 is"


# Sources: for classification and SaRA, their publishers' totals, divided by data/splits.py and
# data/style_files.py; FoodSeg103: pictures whose masks have the class, 913, 558 and 560 as
# dataset-ninja/food-seg-103 counts them; FloodNet: 1,445, 450 (unused) and 448; PASCAL VOC 2012:
# no source at hand, so the forecast says that its number is assumed.
PUBLISHED = {
    "caltech101": Published(4128, 2465, 100),
    "food101": Published(54_136, 25_250, 101),
    "eurosat": Published(13_500, 8100, 10),
    "oxford_pets": Published(2944, 3669, 37),
    "dtd": Published(1880, 1880, 47),
    "icecream": Published(639, 274, assumed=_DIVIDED),
    "pie": Published(391, 167, assumed=_DIVIDED),
    "strawberry": Published(392, 168, assumed=_DIVIDED),
    "flood": Published(1445, 448, assumed="every picture of FloodNet counted, flooded or not"),
    "human": Published(442, 445, assumed="its number of pictures with a person"),
    "art_nouveau": Published(1500, 1000),
    "impressionism": Published(1500, 1000),
    "barbie": Published(252, 63),
    "cyberpunk": Published(351, 88),
}


def _size(kind: type[Lab], name: str, scale: str, root: Path | None) -> tuple[Published, Callable]:
    """A set's size, and (amount, seed) -> how many pictures a run trains on."""
    if scale == "paper" and name in PUBLISHED:
        size = PUBLISHED[name]
        if size.classes:
            return size, lambda amount, seed: min(amount * size.classes, size.train)
        return size, lambda amount, seed: max(1, round(size.train * amount / 100))
    data = kind.load_data(name, scale, root)
    classes = len(getattr(data, "class_names", ()))
    size = Published(len(data.train), len(data.test), classes)
    return size, lambda amount, seed: len(kind.indices(data, amount, seed))


# ------------------------------------------------------------------------------------------- work


@dataclass(frozen=True)
class Work:
    """Of one input: products and sums, and operations, forwards and forwards and back."""

    forward: float
    step: float
    forward_operations: int
    step_operations: int


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def _count(forward: Callable[[], Tensor]) -> Work:
    with FlopCounterMode(display=False) as flops, _Operations() as operations:
        result = forward()
        first, sent = flops.get_total_flops(), operations.count
        if result.requires_grad:
            result.sum().backward()
    return Work(first, flops.get_total_flops(), sent, operations.count)


def _clip_work(lab: Lab, model: nn.Module) -> tuple[Work, ...]:
    shapes = clip_shapes(lab, model, 1, 1)
    picture, prompt, mask = (torch.empty(shape, device="meta") for shape in shapes)
    return (
        _count(lambda: model.encode_image(picture)),
        _count(lambda: model.transformer(prompt, attn_mask=mask)),
    )


def _sam_work(lab: Lab, model: nn.Module) -> tuple[Work, ...]:
    from serial_lora_course.labs.sam import decode, encode

    side = model.image_encoder.img_size
    picture, box = torch.empty(1, 3, side, side, device="meta"), torch.empty(1, 4, device="meta")
    return (_count(lambda: decode(model, encode(model, picture), box)),)


def _sd3_work(lab: Lab, model: nn.Module) -> tuple[Work, ...]:
    pipeline = lab.backbone.pipeline
    side = lab.config.resolution // pipeline.vae_scale_factor
    with torch.device("meta"):
        inputs = sd3_inputs(model, 1, side, lab.backbone.text_tokens)
    vae = without_values(pipeline.vae).requires_grad_(False)
    return (
        _count(lambda: model(**inputs, return_dict=False)[0]),
        _count(lambda: vae.decode(inputs["hidden_states"]).sample),
    )


_WORK = {"clip": _clip_work, "sam": _sam_work, "sd3": _sd3_work}


@dataclass(frozen=True)
class Costs:
    """Of runs that differ in data and seed alone."""

    work: tuple[Work, ...]
    memory: int
    parameters: int


def _costs(lab: Lab, config: LabConfig, method: Method) -> Costs:
    """Of one method; of those that are not the labs' own, what LoRA at the lab's rank takes."""
    if method.name not in METHODS:
        method, config = METHODS["lora"], replace(config, rank=lab.configs["tiny"].rank)
    options = {"dropout": config.dropout, "blocks": config.blocks, **lab.adapter_options()}
    model = without_values(lab.backbone.model).float()  # one type: autocast knows no meta device
    inject(model, method.config(config.rank, **options)).train()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = step_bytes(lab, config, method)
    return Costs(_WORK[lab.name](lab, model), memory, trained)


def _seconds(
    lab: str, costs: Costs, config: LabConfig, size: Published, run: RunForecast, card: Speed
) -> float:
    """Of training and measuring; whichever of card, processor and loader is the slowest."""
    half = card.single if config.precision == "no" else card.half
    batch, work = config.batch_size, costs.work
    again = getattr(config, "gradient_checkpointing", False)

    def slowest(products: float, rate: float, operations: float, pictures: float) -> float:
        prepared = pictures * PICTURE_SECONDS[lab] / CORES
        return max(products / (card.reached * rate), operations * OPERATION_SECONDS, prepared)

    main = work[0]
    step = batch * (main.step + again * main.forward)
    sent = (main.step_operations + again * main.forward_operations) * config.accumulation
    if lab == "clip":
        step += size.classes * work[1].step
        sent += work[1].step_operations
    seconds = run.steps * slowest(step, half, sent, batch)
    if lab == "sd3":
        looks = 2 * config.drawing_steps  # with the prompt and without, for guidance
        decoded = work[1].forward / (card.reached * card.single)
        drawn = slowest(looks * main.forward, half, looks * main.forward_operations / 4, 0)
        return seconds + run.drawings * (drawn + decoded)
    rate = card.single if lab == "clip" else half  # CLIP is measured in float32
    return seconds + run.tests * slowest(main.forward, rate, 0, 1)


# ------------------------------------------------------------------------------------- a command


def forecast(
    *asked: Any,
    out: Path | None = None,
    root: Path | None = None,
    card: str | None = None,
    keeps: bool = False,
    **changes: Any,
) -> list[RunForecast]:
    """Every run that `run_lab` would make of the same arguments, and what it takes.

    Args:
        card: a key of `CARDS`, or "cpu"; None for what this machine has.
        keeps: whether adapters are kept.

    Raises:
        SerialLoRAError: an unknown data set, method, setting or card; or a lab of one's own.
    """
    grid, speed = make_grid(*asked, root=root, **changes), card_named(card)
    source = grid.labs.source
    kind, name, scale, first = source.kind, source.kind.name, source.scale, source.config
    if name not in _WORK:
        raise SerialLoRAError(
            f"What a run of {name} takes cannot be told beforehand; forecasts know {', '.join(_WORK)}."
        )
    sizes = {each: _size(kind, each, scale, root) for each in grid.datasets}
    records = read_records(out) if out is not None else []
    lab = hollow_lab(kind, scale, first, max(size.classes for size, _ in sizes.values()))
    costs: dict[tuple[object, ...], Costs] = {}
    for each in grid.runs:
        if _alike(each) not in costs:
            lab.config = each.config
            costs[_alike(each)] = _costs(lab, each.config, each.method)
    found = []
    for dataset, (size, count) in sizes.items():
        known = [r for r in records if (r.task, r.scale, r.dataset) == (name, scale, dataset)]
        everything = getattr(first, "draw_for", None) == "all"
        shown = size.test + everything * size.train
        looked = {"drawings": shown} if name == "sd3" else {"tests": shown}
        some = next(iter(costs.values()))
        base = RunForecast(dataset, NOT_ADAPTED, bool(known), some.memory, **looked)
        found.append(replace(base, seconds=_seconds(name, some, first, size, base, speed)))
        for each in grid.runs:
            config, method = each.config, each.method
            cost = costs[_alike(each)]
            adapter = BYTES_PER_FLOAT32 * cost.parameters
            run = RunForecast(
                dataset,
                method.name,
                any(_is(record, each) for record in known),
                cost.memory,
                **looked,
                rank=method.rank(config.rank),
                amount=each.amount,
                seed=each.seed,
                steps=config.steps(count(each.amount, each.seed)),
                parameters=cost.parameters,
                disk=RECORD_BYTES + keeps * adapter,
                state=STATE_COPIES * adapter,
            )
            found.append(replace(run, seconds=_seconds(name, cost, config, size, run, speed)))
    return found


def _alike(run: Run) -> tuple[object, ...]:
    """What its costs depend on: LoRA+ differs in its rates alone."""
    return run.config, run.method.kind, run.method.rank(run.config.rank)


def _is(record: Record, run: Run) -> bool:
    """Whether a record of the set is of this run, for all that can be told without the weights."""
    method, config = run.method, run.config
    known = (record.method, record.amount, record.seed, record.rank)
    settings = config.as_settings() | method.settings
    return known == (method.name, run.amount, run.seed, method.rank(config.rank)) and all(
        record.settings.get(key) == value for key, value in settings.items() if key != "precision"
    )


def hollow_lab(kind: type[Lab], scale: str, config: LabConfig, classes: int = 0) -> Lab:
    """A lab whose model, at the paper's scale, has shapes and no values, and that has no pictures.

    Args:
        classes: of the data set that it stands for.
    """
    tools = {"judge": None} if kind.name == "sd3" else {}
    prompts: list[str] = ["a photo of a thing, a kind of thing."] * classes
    data: Any = SimpleNamespace(scale=scale, prompts=lambda: prompts)
    if scale == "tiny":
        return kind(kind.load_backbone(config, scale, None), data, config, **tools)
    return kind(_HOLLOW[kind.name](config), data, config, **tools)


# Each imports the library of its lab, as all of them together load slowly.


def _hollow_clip(config: LabConfig) -> Any:
    import open_clip

    from serial_lora_course.models.clip import PAPER_MODEL

    name = config.model_name or PAPER_MODEL
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    return SimpleNamespace(model=model, tokenizer=open_clip.get_tokenizer(name), scale="paper")


def _hollow_sam(config: LabConfig) -> Any:
    return SimpleNamespace(model=ARCHITECTURES["sam"].on_meta(), scale="paper")


def _hollow_sd3(config: LabConfig) -> Any:
    from serial_lora_course.models.sd3 import TEXT_TOKENS

    pipeline = SimpleNamespace(vae=sd3_part(AUTOENCODER), vae_scale_factor=8)
    model = ARCHITECTURES["sd3"].on_meta().bfloat16()
    tokens = TEXT_TOKENS["paper"]
    return SimpleNamespace(model=model, scale="paper", pipeline=pipeline, text_tokens=tokens)


_HOLLOW: Mapping[str, Callable[[LabConfig], Any]] = {
    "clip": _hollow_clip,
    "sam": _hollow_sam,
    "sd3": _hollow_sd3,
}


# ----------------------------------------------------------------------------------------- in words


def told(runs: Sequence[RunForecast], card: str | None = None) -> Iterator[str]:
    """A line for each data set, and one for all."""
    speed = card_named(card)
    for dataset in dict.fromkeys(run.dataset for run in runs):
        line = f"{dataset}: {in_short([run for run in runs if run.dataset == dataset])}"
        assumed = PUBLISHED[dataset].assumed if dataset in PUBLISHED else ""
        yield f"{line} (assumed: {assumed})" if assumed else line
    yield f"All: {in_short(runs)}"
    left = [run for run in runs if not run.done]
    peak = max((run.memory for run in left), default=0)
    too_much = " THE CARD HAS LESS MEMORY." if 0 < speed.memory < peak else ""
    yield (
        f"On {speed.name}, by arithmetic (between half and twice as long): {_time(left)}. "
        f"{space(left)}{too_much}"
    )


def space(left: Sequence[RunForecast]) -> str:
    """What runs take of the card and of the disk, in words."""
    peak = max((run.memory for run in left), default=0)
    written = sum(run.disk for run in left) + max((run.state for run in left), default=0)
    return f"Peak memory about {peak / GIB:.1f} GiB. Disk: {written / 1e6:,.0f} MB."


def in_short(runs: Sequence[RunForecast]) -> str:
    """What is left of runs and what is done, and how long it takes, in words."""
    adapted = [run for run in runs if run.method != NOT_ADAPTED]
    left = [run for run in adapted if not run.done]
    drawings = sum(run.drawings for run in runs if not run.done)
    drawn = f", {drawings:,} drawings" if drawings else ""
    return (
        f"{len(left):,} run{'s' if len(left) != 1 else ''} left and {len(adapted) - len(left):,} done; "
        f"{sum(run.steps for run in left):,} optimizer steps{drawn}, "
        f"{_time([run for run in runs if not run.done])}"
    )


def _time(runs: Sequence[RunForecast]) -> str:
    return in_words(sum(run.seconds for run in runs))
