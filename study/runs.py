"""The loop: every run of the plan that is not there yet, by any number of processes on one folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.grid import Source
from serial_lora_course.labs.lab import Lab, Outcomes, run_one
from serial_lora_course.labs.records import Kept, Record, environment
from study.labs import STUDIES
from study.methods import KNOWN
from study.plan import CHOOSING_SEED, STEP, Arm, LabPlan
from study.results import PACKED, Results, Run
from study.sets import VALIDATION

COMMAND = "python -m study run"


class Study:
    """One lab of the study, and the folder that keeps its runs."""

    def __init__(self, plan: LabPlan, folder: Path, packed: Path = PACKED) -> None:
        self.plan = plan
        self.results = Results(plan, folder, packed)
        self.kept = Kept(folder / f"{plan.lab}.jsonl")
        kind = STUDIES[plan.lab]
        self.lab = cache(Source(kind, kind.configs["tiny"], "tiny").open)

    def is_current(self, record: Record | None) -> bool:
        """Whether there is a record, of these pictures and weights."""
        if record is None:
            return False
        return self.lab(record.dataset).contents.items() <= record.settings.items()

    def do_arm(self, arm: Arm) -> None:
        """Every run of an arm that is not there: those that choose its rate, then those that count."""
        sets = [dataset + VALIDATION for dataset in self.plan.chosen_on]
        planned = arm.rate / STEP, arm.rate, arm.rate * STEP
        rates = sorted({*planned, *self.results.rates_tried(arm)})
        while rates:
            self._do([Run(arm, dataset, CHOOSING_SEED, rate) for rate in rates for dataset in sets])
            further = self.results.next_rate(arm)
            rates = [] if further is None else [further]
        self._do(self.results.final_runs(arm))

    def _do(self, runs: list[Run]) -> None:
        """Those that another process is at are waited for at the end."""
        for run, wait in [(run, wait) for wait in (False, True) for run in runs]:
            if self.is_current(self.results.records.get(run.name)):
                continue
            lab = self.lab(run.dataset)
            changes = {"rank": run.arm.rank, "lr": run.rate, "blocks": run.arm.blocks}
            lab.config = replace(lab.configs["tiny"], **changes)
            amount = self.plan.amount if run.arm.amount is None else run.arm.amount
            key = lab.key(KNOWN[run.arm.method], amount, run.seed)
            if found := self.kept.or_run(key, partial(self._measured, lab, run, amount), wait):
                self.results.records[run.name], is_new = found
                if is_new:
                    reached = found[0].measures[self.plan.measure]
                    told = f"{self.plan.lab} {run.name}: {self.plan.measure} {reached:.4f}"
                    print(told, flush=True)

    def _measured(self, lab: Lab, run: Run, amount: int, save_to: Path | None) -> Record:
        """Do a run; its outcomes are written before its record is."""
        is_final = not run.dataset.endswith(VALIDATION)
        if is_final and "base" not in vars(lab):  # not measured yet
            self.results.keep(f"base_{run.dataset}", lab.measure()[1])
        method = KNOWN[run.arm.method]

        def keep(_: Lab, __: object, seen: Outcomes, ___: str) -> None:
            if is_final:
                self.results.keep(run.name, seen)

        options = {"save_to": save_to, "draw": keep, "progress": False}
        try:
            return run_one(lab, method, amount, run.seed, command=COMMAND, **options)
        except SerialLoRAError as error:
            if is_final or "The loss became" not in str(error):
                raise
        # A rate that is too large is a try like any other, and the worst.
        about = (lab.name, lab.data.scale, run.dataset, method.name, amount, lab.unit, run.seed)
        worst = dict.fromkeys((self.plan.measure, self.plan.chosen_by), 0.0)
        measures, rank = lab.base | worst | {"diverged": 1.0}, method.rank(run.arm.rank)
        where = (lab.settings(method), environment(), COMMAND)
        return Record(*about, rank, measures, {}, 0.0, *where)


def go_on(studies: Iterable[Study]) -> Iterator[str]:
    """Every run that is not there, arm by arm; what could not be done, in words.

    One arm's trouble is no reason for hours without the others.
    """
    torch.set_num_threads(1)  # runs are small, and equal on every machine then
    for study in studies:
        for arm in study.plan.arms:
            try:
                study.do_arm(arm)
            except SerialLoRAError as error:
                yield f"{study.plan.lab} {arm.name}: {error}"
