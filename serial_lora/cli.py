"""The command line: ``serial-lora doctor``, ``serial-lora lab clip|sam``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console

from serial_lora.errors import SerialLoRAError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serial LoRA, from scratch: labs and tools of the course.",
)
lab_app = typer.Typer(no_args_is_help=True, help="Adapt a backbone, measure, keep records.")
app.add_typer(lab_app, name="lab")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    try:
        app(args=arguments)
    except SerialLoRAError as error:
        print(f"serial-lora: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def doctor() -> None:
    """Say whether this machine is ready for the course, and what to do where it is not."""
    from serial_lora.course.doctor import doctor as examine

    report = examine()
    print(report)
    raise typer.Exit(0 if report.ok else 1)


# Options that every lab has.
Methods = Annotated[str, typer.Option(help="names separated by commas, or 'all'")]
Seeds = Annotated[int, typer.Option(help="number of seeds: 1 to this one")]
Rank = Annotated[int | None, typer.Option(help="rank of both methods")]
Rate = Annotated[float | None, typer.Option(help="learning rate")]
Epochs = Annotated[int | None, typer.Option(help="rounds over the training pictures")]
BatchSize = Annotated[int | None, typer.Option(help="pictures per step")]
Precision = Annotated[str | None, typer.Option(help="bf16 or no (float32)")]
Accumulation = Annotated[int | None, typer.Option(help="parts of a batch")]
Root = Annotated[Path | None, typer.Option(help="folder of the downloaded data")]
Out = Annotated[Path, typer.Option(help="JSONL file of records")]


@lab_app.command("clip")
def lab_clip(
    scale: Annotated[str, typer.Option(help="tiny (emoji, CPU) or paper (ViT-B/16, GPU)")] = "tiny",
    dataset: Annotated[
        str, typer.Option(help="names separated by commas, 'all', or a folder of class folders")
    ] = "all",
    methods: Methods = "lora,serial_lora",
    shots: Annotated[str, typer.Option(help="pictures per class, separated by commas")] = "16",
    seeds: Seeds = 3,
    rank: Rank = None,
    lr: Rate = None,
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
    On several GPUs: accelerate launch -m serial_lora.cli lab clip ...
    """
    from serial_lora.data.classification import dataset_names
    from serial_lora.labs import clip

    changes = {
        "rank": rank, "lr": lr, "epochs": epochs, "batch_size": batch_size, "prompt": prompt,
        "precision": precision, "accumulation": accumulation, "model_name": model_name,
    }  # fmt: skip
    _run(
        clip, scale, dataset_names, dataset, methods, seeds, out, changes,
        shots=_numbers(shots, "shots"), root=root, weights=weights,
    )  # fmt: skip


@lab_app.command("sam")
def lab_sam(
    scale: Annotated[
        str, typer.Option(help="tiny (drawings on photographs, CPU) or paper (ViT-B, GPU)")
    ] = "tiny",
    dataset: Annotated[str, typer.Option(help="names separated by commas, or 'all'")] = "all",
    methods: Methods = "lora,serial_lora",
    percent: Annotated[
        str, typer.Option(help="shares of the training pictures, separated by commas")
    ] = "100",
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
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="less memory, slower steps, the same gradients",
        ),
    ] = None,
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
    On several GPUs: accelerate launch -m serial_lora.cli lab sam ...
    """
    from serial_lora.data.segmentation import segmentation_names
    from serial_lora.labs import sam

    changes = {
        "rank": rank, "lr": lr, "epochs": epochs, "batch_size": batch_size, "jitter": jitter,
        "precision": precision, "accumulation": accumulation,
        "gradient_checkpointing": gradient_checkpointing,
    }  # fmt: skip
    _run(
        sam, scale, segmentation_names, dataset, methods, seeds, out, changes,
        percent=_numbers(percent, "percentages"), root=root, weights=weights, pictures=pictures,
    )  # fmt: skip


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
    from serial_lora.labs.methods import METHODS
    from serial_lora.labs.report import closing_line, results_table, run_line
    from serial_lora.labs.runs import is_first_process

    datasets = list(all_datasets(scale)) if dataset == "all" else _names(dataset)
    console = Console(quiet=not is_first_process())
    console.print(f"Settings: {lab.lab_config(scale, **changes)}", highlight=False)
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


def _numbers(text: str, what: str) -> list[int]:
    try:
        return [int(part) for part in _names(text)]
    except ValueError as error:
        raise SerialLoRAError(
            f"The {what} must be whole numbers separated by commas, not {text!r}."
        ) from error


if __name__ == "__main__":
    main()
