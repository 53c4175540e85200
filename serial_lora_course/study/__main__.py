"""The study by command: ``python -m serial_lora_course.study run|plan|tables|references|steps|repeat|pack``; see docs/study.md."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from serial_lora.errors import require_choice
from serial_lora_course.door import enter
from serial_lora_course.figures.study import plot_answers, plot_front
from serial_lora_course.files import write_json
from serial_lora_course.labs.ray_workers import Share
from serial_lora_course.plots.style import save_figure
from serial_lora_course.study.found import (
    FOUND,
    FRONT,
    INTERVALS,
    PACKED,
    REPEATED,
    STEPS,
    read_steps,
)
from serial_lora_course.study.labs import fresh_lab
from serial_lora_course.study.left import left_lines
from serial_lora_course.study.plan import PLANS, UNITS
from serial_lora_course.study.power import plan_page
from serial_lora_course.study.references import probe_table
from serial_lora_course.study.repeated import repeat
from serial_lora_course.study.runs import Study, go_on, pack, studies
from serial_lora_course.study.steps import compared, measure_steps
from serial_lora_course.study.tables import (
    Results,
    answers_table,
    choices_table,
    found_by,
    found_in_what_is_packed,
    progress,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
Folder = Annotated[Path, typer.Option(help="where records, outcomes and adapters are kept")]
Labs = Annotated[str, typer.Option(help="labs separated by commas, in this order")]
FOLDER, EVERY = Path("runs") / "study", ",".join(PLANS)


@app.command()
def run(
    out: Folder = FOLDER,
    labs: Labs = EVERY,
    hours: Annotated[float, typer.Option(help="no run begins after so many")] = float("inf"),
    dry_run: Annotated[
        bool, typer.Option(help="say what there is to run, and run nothing")
    ] = False,
    on: Annotated[
        str | None, typer.Option(help="ray: a Ray cluster; ray:HOST:PORT names one")
    ] = None,
) -> None:
    """Every run of the plan that is not there yet; it may be stopped at any moment."""
    if dry_run:
        with TemporaryDirectory() as nowhere:  # what travels with the course is unpacked there
            there = {
                plan: (out / f"{plan.lab}.jsonl").exists() for plan in studies(labs.split(","))
            }
            places = {plan: out if is_there else Path(nowhere) for plan, is_there in there.items()}
            for line in left_lines([Study(plan, place) for plan, place in places.items()]):
                typer.echo(line)
        return
    torch.set_num_threads(1)  # runs are small, and equal on every machine then
    until = time.monotonic() + 3600 * hours
    several = [Study(plan, out, until, print_now) for plan in studies(labs.split(","))]
    whole = go_on(several, None if on is None else Share.named(on, 1.0, 0.0, None))
    for study in several:
        end = "every run is there" if study in whole else "not every run is there yet; run it again"
        typer.echo(f"{study.plan.lab}: {end}.")


@app.command()
def plan() -> None:
    """What will be run, how long it takes, and how small a difference it can see."""
    typer.echo(plan_page())


@app.command()
def tables(out: Folder = FOLDER, labs: Labs = EVERY) -> None:
    """What was found so far, from records and outcomes: questions, arms, the rates tried, the front."""
    several = [Results.of(Study(each, out)) for each in studies(labs.split(","))]
    found = found_by(several)
    pages = {"questions": answers_table(found.answers)}
    for results in several:
        lab = results.study.plan.lab
        pages[f"{lab}_arms"] = found.arms[lab]
        pages[f"{lab}_rates"] = choices_table(results.study).reset_index()
        typer.echo(progress(results.study))
    if fronts := found.comparable:
        save_figure(plot_front(fronts, UNITS), out / "front.png")
    for name, page in pages.items():
        page.to_csv(out / f"{name}.csv", index=False)
        typer.echo(f"\n{name}\n{page.round(3).to_string(index=False)}")


@app.command()
def references(out: Folder = FOLDER) -> None:
    """A linear probe on the unadapted tiny CLIP, with the same shots, to stand beside the arms."""
    page = probe_table(fresh_lab("clip", PLANS["clip"].chosen_on[0]).backbone)
    out.mkdir(parents=True, exist_ok=True)
    page.to_csv(out / "clip_probe.csv", index=False)
    typer.echo(page.round(3).to_string(index=False))


@app.command()
def steps(
    labs: Labs = EVERY,
    rounds: Annotated[int, typer.Option(min=1, help="turns of every arm")] = 5,
    each: Annotated[int, typer.Option(min=1, help="steps of an arm in a round")] = 3,
    arms: Annotated[
        str | None, typer.Option(help="some arms alone, by their names in the plan; to try it out")
    ] = None,
    to: Annotated[Path, typer.Option(help="the file that keeps them")] = PACKED / STEPS,
) -> None:
    """Time a training step of every arm on this machine, beside LoRA's: on a core that does nothing else."""
    torch.set_num_threads(1)
    for each_plan in studies(labs.split(",")):
        chosen = {arm.name: arm for arm in compared(each_plan)}
        if arms is not None:
            names = dict.fromkeys([each_plan.reference, *arms.split(",")])
            for name in names:
                require_choice("arm with the usual data in this lab", name, chosen)
            chosen = {name: chosen[name] for name in names}
        told = measure_steps(each_plan, list(chosen.values()), rounds, each, print_now)
        write_json(to, read_steps(to) | {each_plan.lab: told})  # after each lab: it may be stopped
        for name, ratio in told["ratios"].items():
            typer.echo(f"{each_plan.lab} {name}: {ratio:.2f}")


@app.command("repeat")
def repeat_runs(
    lab: Annotated[str, typer.Option(help="the lab")] = "sam",
    arm: Annotated[str, typer.Option(help="the arm, by its name in the plan")] = "lora_tied-6",
    out: Folder = FOLDER,
    to: Annotated[Path, typer.Option(help="the file that keeps it")] = PACKED / REPEATED,
) -> None:
    """Do an arm's runs of the first seed again on this machine, and say how far apart they come out."""
    torch.set_num_threads(1)
    [chosen_plan] = studies([lab])
    arms = {each.name: each for each in chosen_plan.arms}
    require_choice("arm in this lab", arm, arms)
    write_json(to, repeat(Study(chosen_plan, out), arms[arm], print_now))


def print_now(line: str) -> None:
    """Into a log file too, as soon as it is said."""
    print(line, flush=True)


@app.command("pack")
def pack_records(out: Folder = FOLDER, labs: Labs = EVERY) -> None:
    """Compress records and outcomes to where they travel with the course."""
    for each in studies(labs.split(",")):
        pack(each, out)
    found = found_in_what_is_packed()
    write_json(PACKED / FOUND, found.as_json())
    save_figure(plot_answers(found.intervals), PACKED / INTERVALS, dpi=120)  # for docs/study.md
    if fronts := found.comparable:  # for README.md
        save_figure(plot_front(fronts, UNITS), PACKED / FRONT, dpi=120)


if __name__ == "__main__":
    enter("study", app)
