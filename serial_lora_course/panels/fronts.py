"""The panel of lesson 11: the best of the study's arms for what one may cost."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import pandas as pd

from serial_lora_course.figures.study import COSTS, FORMATS, plot_budget
from serial_lora_course.panels.shown import Accessibility, show
from serial_lora_course.plots.style import display_figure


class FrontPanel(ipywidgets.VBox):
    """A slider for what an arm may cost, over gain against that cost.

    Attributes:
        lab, cost: what is shown; most: the slider, from the cheapest arm to the dearest.
    """

    def __init__(self, labs: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> None:
        self.labs, self.units = labs, units
        self.lab = ipywidgets.Dropdown(options=list(labs), description="lab")
        self.cost = ipywidgets.Dropdown(
            options=[(COSTS[cost], cost) for cost in _measured(labs)], description="cost"
        )
        self.most = ipywidgets.SelectionSlider(
            options=self._costs(), description="at most", continuous_update=False
        )
        self.most.index = len(self.most.options) // 2
        for choice in (self.lab, self.cost):  # before it is drawn
            choice.observe(self._limit, names="value")
        controls = {"lab": self.lab, "cost": self.cost, "most": self.most}
        shown = ipywidgets.interactive_output(self._show, controls)
        super().__init__([*controls.values(), shown, Accessibility()])

    def _costs(self) -> list[tuple[str, float]]:
        values = self.labs[self.lab.value][self.cost.value].dropna().unique()
        form = FORMATS[self.cost.value]
        return [(form.format(value), value) for value in sorted(values)]

    def _limit(self, _: object) -> None:
        self.most.options = self._costs()

    def _show(self, lab: str, cost: str, most: float) -> None:
        arms = self.labs[lab]
        if not (arms[cost] <= most).any():  # between two choices the slider is the other one's
            most = arms[cost].max()
        display_figure(plot_budget(arms, self.units[lab], cost, most))


def _measured(labs: Mapping[str, pd.DataFrame]) -> list[str]:
    """The costs that are known in every lab."""
    return [cost for cost in COSTS if all(arms[cost].notna().any() for arms in labs.values())]


def front_panel(labs: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> None:
    """Show which arm is best for what it may cost.

    Args:
        labs: lab -> its finished arms, with `serial_lora_course.study.found.COLUMNS`.
        units: lab -> the unit of its gain.
    """
    there = {lab: arms for lab, arms in labs.items() if arms["parameters"].notna().any()}
    if not there:
        print("No arm of the study has all its runs yet, so there is no front to show.")
        return

    def still() -> None:
        lab, arms = next(iter(there.items()))
        for cost in _measured({lab: arms}):
            display_figure(plot_budget(arms, units[lab], cost, arms[cost].median()))

    show(lambda: FrontPanel(there, units), still)
