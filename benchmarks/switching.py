"""What does it take to change from one adapter to another? Ours, and PEFT's `set_adapter`."""

from __future__ import annotations

import copy
from functools import partial
from itertools import cycle
from typing import Any

import peft

from benchmarks.models import SUBJECTS
from benchmarks.steps import clocked
from serial_lora import activate, add_adapter, inject


def measure_switching(quick: bool) -> list[dict[str, Any]]:
    """A row for each method: two adapters on SAM's encoder, there and back in turns.

    Our switch copies one adapter out of the pairs and one into them; PEFT's goes through its layers and
    sets their names.
    """
    sam, steps = SUBJECTS["sam"](quick), {}
    for method, config in sam.methods.items():
        model = copy.deepcopy(sam.model)
        if isinstance(config, peft.LoraConfig):
            model = peft.get_peft_model(model, config, adapter_name="first")
            model.add_adapter("second", config)
            switch = model.set_adapter
        else:
            add_adapter(inject(model, config, name="first"), "second")
            switch = partial(activate, model)
        names = cycle(("second", "first"))
        steps[method] = lambda switch=switch, names=names: switch(next(names))
    clocks = clocked(steps, "PEFT LoRA", "PEFT's", rounds=40)
    return [{"two adapters on SAM's encoder": method} | clocks[method] for method in clocks]
