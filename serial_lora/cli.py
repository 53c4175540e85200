"""The command line: ``serial-lora doctor``, ``serial-lora lab clip``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

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


@lab_app.command("clip")
def lab_clip(
    scale: Annotated[str, typer.Option(help="tiny (emoji, CPU) or paper (ViT-B/16, GPU)")] = "tiny",
    dataset: Annotated[
        str, typer.Option(help="names separated by commas, 'all', or a folder of class folders")
    ] = "all",
    methods: Annotated[
        str, typer.Option(help="names separated by commas, or 'all'")
    ] = "lora,serial_lora",
    shots: Annotated[str, typer.Option(help="pictures per class, separated by commas")] = "16",
    seeds: Annotated[int, typer.Option(help="number of seeds: 1 to this one")] = 3,
    rank: Annotated[int | None, typer.Option(help="rank of both methods")] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate")] = None,
    epochs: Annotated[int | None, typer.Option(help="rounds over the training pictures")] = None,
    batch_size: Annotated[int | None, typer.Option(help="pictures per step")] = None,
    prompt: Annotated[str | None, typer.Option(help="dataset or generic")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16 or no (float32)")] = None,
    accumulation: Annotated[int | None, typer.Option(help="parts of a batch")] = None,
    model_name: Annotated[str | None, typer.Option(help="another open_clip model")] = None,
    weights: Annotated[str, typer.Option(help="a safetensors file of the model")] = "default",
    root: Annotated[Path | None, typer.Option(help="folder of the downloaded data")] = None,
    out: Annotated[Path, typer.Option(help="JSONL file of records")] = Path("runs/clip.jsonl"),
) -> None:
    """Few-shot classification: zero-shot first, then every method, shots and seed.

    Runs whose record is in --out are not run again; an interrupted run goes on where it stopped.
    On several GPUs: accelerate launch -m serial_lora.cli lab clip ...
    """
    from serial_lora.data.classification import dataset_names
    from serial_lora.labs.clip import lab_config, run_lab
    from serial_lora.labs.methods import METHODS
    from serial_lora.labs.runs import is_first_process

    changes = {
        "rank": rank, "lr": lr, "epochs": epochs, "batch_size": batch_size, "prompt": prompt,
        "precision": precision, "accumulation": accumulation, "model_name": model_name,
    }  # fmt: skip
    datasets = dataset_names(scale) if dataset == "all" else _names(dataset)
    console = Console(quiet=not is_first_process())
    console.print(f"Settings: {lab_config(scale, **changes)}", highlight=False)
    records = run_lab(
        datasets=datasets,
        methods=list(METHODS) if methods == "all" else _names(methods),
        shots=_numbers(shots, "shots"),
        seeds=range(1, seeds + 1),
        scale=scale,
        out=out,
        root=root,
        weights=weights,
        on_record=lambda record, is_new: console.print(_line(record, is_new), highlight=False),
        **changes,
    )
    console.print(results_table(records))
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


def _line(record, is_new: bool) -> str:
    from serial_lora.labs.methods import METHODS

    end = "" if is_new else "  (already in the records)"
    short = record.sizes.get("short_classes", 0)
    if short:
        end = f"; {short} of the classes have fewer pictures and gave all they have{end}"
    return (
        f"{record.dataset}, {record.shots} shots, seed {record.seed}, "
        f"{METHODS[record.method].label}: "
        f"{record.measures['accuracy']:.1%} in {record.seconds:.0f} s{end}"
    )


def results_table(records: list) -> Table:
    """One row for each data set, shots and method: sizes, both accuracies, seconds.

    At paper scale the accuracy that the paper's Table III prints stands beside it.
    """
    from serial_lora.labs.methods import METHODS

    beside_paper = any(record.scale == "paper" for record in records)

    # In a narrow terminal words are folded; a digit is never cut off.
    table = Table(title="CLIP few-shot classification", box=SIMPLE_HEAD, padding=0)
    for column in ("data set", "shots", "method"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "bytes", "zero-shot", "adapted", "seeds", "seconds"):
        table.add_column(column, justify="right", overflow="fold", no_wrap=column != "adapted")
    if beside_paper:
        table.add_column("paper", justify="right", no_wrap=True)
    groups: dict[tuple, list] = {}
    for record in records:
        groups.setdefault((record.dataset, record.shots, record.method), []).append(record)
    for (dataset, shots, method), group in groups.items():
        first = group[0]
        table.add_row(
            dataset, str(shots), METHODS[method].label,
            f"{first.sizes['parameters']:,}", f"{first.sizes['bytes']:,}",
            f"{zero_shot_of(first):.1%}", _mean_and_spread(group),
            str(len(group)), f"{sum(r.seconds for r in group) / len(group):.0f}",
            *([paper_accuracy(dataset, shots, method)] if beside_paper else []),
        )  # fmt: skip
    return table


def paper_accuracy(dataset: str, shots: int, method: str) -> str:
    """What the paper's Table III prints for this cell, or a dash where it prints nothing."""
    from serial_lora.counting import paper_results

    table = paper_results()
    cell = table[
        (table["where"] == "Table III")
        & (table["dataset"] == dataset)
        & (table["amount"] == f"{shots} shot")
        & (table["method"] == method)
    ]
    return "–" if cell.empty else f"{cell['value'].item():.2f}%"


def zero_shot_of(record) -> float:
    """The zero-shot accuracy under the prompt that the run was trained with."""
    return record.measures[f"zero_shot_{record.settings['prompt']}"]


def _mean_and_spread(group: list) -> str:
    values = [record.measures["accuracy"] for record in group]
    mean = sum(values) / len(values)
    spread = (max(values) - min(values)) / 2
    return f"{mean:.1%}" + (f" ± {spread:.1%}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
