"""The lab commands: ``serial-lora lab clip|sam|sd3``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console

from serial_lora.errors import SerialLoRAError

app = typer.Typer(no_args_is_help=True, help="Adapt a backbone, measure, keep records.")


# Options that several labs have.
Methods = Annotated[str, typer.Option(help="names separated by commas, or 'all'")]
Seeds = Annotated[int, typer.Option(help="number of seeds: 1 to this one")]
Rank = Annotated[int | None, typer.Option(help="rank of both methods")]
Rate = Annotated[float | None, typer.Option(help="learning rate")]
Epochs = Annotated[int | None, typer.Option(help="rounds over the training pictures")]
BatchSize = Annotated[int | None, typer.Option(help="pictures per step")]
Precision = Annotated[str | None, typer.Option(help="bf16 or no (float32)")]
Accumulation = Annotated[int | None, typer.Option(help="parts of a batch")]
Percent = Annotated[str, typer.Option(help="shares of the training pictures, separated by commas")]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="less memory, slower steps, the same gradients",
    ),
]
Root = Annotated[Path | None, typer.Option(help="folder of the downloaded data")]
Out = Annotated[Path, typer.Option(help="JSONL file of records")]


@app.command("clip")
def lab_clip(
    scale: Annotated[str, typer.Option(help="tiny (emoji, CPU) or paper (ViT-B/16, GPU)")] = "tiny",
    dataset: Annotated[
        str, typer.Option(help="names separated by commas, 'all', or a folder of class folders")
    ] = "all",
    methods: Methods = "lora,serial_lora",
    shots: Annotated[str, typer.Option(help="pictures per class, separated by commas")] = "16",
    seeds: Seeds = 3,
    rank: Annotated[
        str | None, typer.Option(help="rank of the methods; several, separated by commas, to sweep")
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(help="LoRA+'s rate of B over that of A, one or several; 20 by default"),
    ] = None,
    lr: Rate = None,
    plus_lr: Annotated[
        str | None, typer.Option(help="rate of A in the LoRA+ methods, one or several")
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    prompt: Annotated[str | None, typer.Option(help="dataset or generic")] = None,
    precision: Precision = None,
    accumulation: Accumulation = None,
    model_name: Annotated[str | None, typer.Option(help="another open_clip model")] = None,
    weights: Annotated[str, typer.Option(help="a safetensors file of the model")] = "default",
    root: Root = None,
    out: Out = Path("runs/clip.jsonl"),
) -> None:
    """Few-shot classification: zero-shot first, then every method, shots and seed.

    Runs whose record is in --out are not run again; an interrupted run goes on where it stopped.
    On several GPUs: accelerate launch -m serial_lora_course.cli lab clip ...
    """
    from serial_lora_course.data.registry import dataset_names
    from serial_lora_course.labs import clip

    changes = {
        "rank": _numbers(rank, "rank"),
        "lr": lr,
        "plus_lr": _numbers(plus_lr, "plus-lr", float),
        "epochs": epochs,
        "batch_size": batch_size,
        "prompt": prompt,
        "precision": precision,
        "accumulation": accumulation,
        "model_name": model_name,
    }
    _run(
        clip,
        scale,
        partial(dataset_names, "classification"),
        dataset,
        methods,
        seeds,
        out,
        changes,
        shots=_numbers(shots, "shots"),
        ratio=_numbers(ratio, "ratio", float),
        root=root,
        weights=weights,
    )


@app.command("sam")
def lab_sam(
    scale: Annotated[
        str, typer.Option(help="tiny (drawings on photographs, CPU) or paper (ViT-B, GPU)")
    ] = "tiny",
    dataset: Annotated[str, typer.Option(help="names separated by commas, or 'all'")] = "all",
    methods: Methods = "lora,serial_lora",
    percent: Percent = "100",
    seeds: Seeds = 3,
    rank: Rank = None,
    lr: Rate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    jitter: Annotated[
        float | None, typer.Option(help="of a training box's edges, as a share of its sides")
    ] = None,
    precision: Precision = None,
    accumulation: Accumulation = None,
    gradient_checkpointing: Checkpointing = None,
    weights: Annotated[str, typer.Option(help="a checkpoint of the model")] = "default",
    root: Root = None,
    out: Out = Path("runs/sam.jsonl"),
    pictures: Annotated[
        Path | None,
        typer.Option(help="folder for the best, median and worst picture of each new run"),
    ] = None,
) -> None:
    """Segmentation of boxed objects, measured by Dice: unadapted first, then every method.

    Runs whose record is in --out are not run again; an interrupted run goes on where it stopped.
    On several GPUs: accelerate launch -m serial_lora_course.cli lab sam ...
    """
    from serial_lora_course.data.registry import dataset_names
    from serial_lora_course.labs import sam

    changes = {
        "rank": rank,
        "lr": lr,
        "epochs": epochs,
        "batch_size": batch_size,
        "jitter": jitter,
        "precision": precision,
        "accumulation": accumulation,
        "gradient_checkpointing": gradient_checkpointing,
    }
    _run(
        sam,
        scale,
        partial(dataset_names, "segmentation"),
        dataset,
        methods,
        seeds,
        out,
        changes,
        percent=_numbers(percent, "percentages"),
        root=root,
        weights=weights,
        pictures=pictures,
    )


@app.command("sd3")
def lab_sd3(
    scale: Annotated[
        str, typer.Option(help="tiny (drawings of 64 pixels, CPU) or paper (SD3 medium, GPU)")
    ] = "tiny",
    dataset: Annotated[
        str, typer.Option(help="styles: names separated by commas, or 'all'")
    ] = "all",
    methods: Methods = "lora,serial_lora",
    percent: Percent = "100",
    seeds: Seeds = 3,
    rank: Rank = None,
    lr: Rate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    stream: Annotated[
        str | None, typer.Option(help="tokens that are adapted: image, text or both")
    ] = None,
    weighting: Annotated[
        str | None, typer.Option(help="of the loss over noise levels: plain or sigma_squared")
    ] = None,
    text_dropout: Annotated[
        float | None, typer.Option(help="share of pictures that meet the empty prompt")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="side of pictures and drawings, in pixels")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="classifier-free guidance")] = None,
    precision: Precision = None,
    accumulation: Accumulation = None,
    gradient_checkpointing: Checkpointing = None,
    weights: Annotated[
        str, typer.Option(help="a folder that StableDiffusion3Pipeline loads")
    ] = "default",
    root: Root = None,
    out: Out = Path("runs/sd3.jsonl"),
    pictures: Annotated[
        Path | None, typer.Option(help="folder for a sheet of drawings of each new run")
    ] = None,
) -> None:
    """Style tuning, measured by FID, KID and CLIP-Score: unadapted first, then every method.

    Runs whose record is in --out are not run again; an interrupted run goes on where it stopped.
    On several GPUs: accelerate launch -m serial_lora_course.cli lab sd3 ...
    """
    from serial_lora_course.data.registry import dataset_names
    from serial_lora_course.labs import sd3

    changes = {
        "rank": rank,
        "lr": lr,
        "epochs": epochs,
        "batch_size": batch_size,
        "stream": stream,
        "weighting": weighting,
        "text_dropout": text_dropout,
        "resolution": resolution,
        "guidance": guidance,
        "precision": precision,
        "accumulation": accumulation,
        "gradient_checkpointing": gradient_checkpointing,
    }
    _run(
        sd3,
        scale,
        partial(dataset_names, "style"),
        dataset,
        methods,
        seeds,
        out,
        changes,
        percent=_numbers(percent, "percentages"),
        root=root,
        weights=weights,
        pictures=pictures,
    )


def _run(
    lab: ModuleType,
    scale: str,
    all_datasets: Callable[[str], Sequence[str]],
    dataset: str,
    methods: str,
    seeds: int,
    out: Path,
    changes: dict[str, object],
    **options: object,
) -> None:
    """What every lab command does: settings first, a line for each run, the table at the end."""
    from serial_lora_course.labs.methods import METHODS
    from serial_lora_course.labs.report import closing_line, results_table, run_line
    from serial_lora_course.labs.runs import is_first_process, swept_configs

    datasets = list(all_datasets(scale)) if dataset == "all" else _names(dataset)
    console = Console(quiet=not is_first_process())
    swept = {name: value for name, value in changes.items() if isinstance(value, list)}
    single = {name: value for name, value in changes.items() if name not in swept}
    for config in swept_configs(lab.CONFIGS, scale, swept, **single):
        console.print(f"Settings: {config}", highlight=False)
    records = lab.run_lab(
        datasets=datasets,
        methods=list(METHODS) if methods == "all" else _names(methods),
        seeds=range(1, seeds + 1),
        scale=scale,
        out=out,
        on_record=lambda record, is_new: console.print(run_line(record, is_new), highlight=False),
        **options,
        **changes,
    )
    console.print(results_table(records))
    if closing := closing_line(records):
        console.print(closing, highlight=False)
    console.print(f"Records: {out}", highlight=False)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SerialLoRAError("An option that takes names was left empty; give at least one name.")
    return names


def _numbers(text: str | None, what: str, kind: type = int) -> list | None:
    """Numbers separated by commas; None where the option was not given."""
    try:
        return None if text is None else [kind(part) for part in _names(text)]
    except ValueError as error:
        whole = "whole numbers" if kind is int else "numbers"
        raise SerialLoRAError(
            f"The {what} must be {whole} separated by commas, not {text!r}."
        ) from error
