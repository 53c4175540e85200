"""The state of an interrupted training, and the file that keeps it.

Nothing here is needed to understand the training loop.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole


@dataclass
class TrainingHistory:
    """What a run did: one loss per optimizer step, seconds, the GPU's peak bytes (0 on CPU), precision."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory: int = 0
    precision: str = ""


class SavedState:
    """Everything that a training needs to go on where it stopped.

    Args:
        parts: optimizer and scheduler, by name.
        run: what is trained, how and on what, in words: a file of another run is refused.
        file: where to keep it; None for nowhere.
    """

    def __init__(
        self, objective: nn.Module, parts: dict[str, object], run: str, file: str | Path | None
    ) -> None:
        self.tensors = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.parts, self.run = parts, run
        self.file = None if file is None else Path(file)

    def save(self, history: TrainingHistory) -> None:
        """Write the file.

        Raises:
            SerialLoRAError: it cannot be written.
        """
        if self.file is None:
            return
        state = {
            "run": self.run,
            "tensors": {name: tensor.detach().cpu() for name, tensor in self.tensors.items()},
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "random": torch.get_rng_state(),
            "random_on_gpu": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "history": asdict(history),
        }
        content = io.BytesIO()
        torch.save(state, content)
        try:
            write_whole(self.file, content.getvalue())
        except OSError as error:
            raise SerialLoRAError(
                f"The state of the run cannot be saved to {self.file} ({error}); free some space "
                "or choose another folder. Finished runs are kept."
            ) from error

    def restore(self) -> TrainingHistory:
        """Load the file, if there is one; what the run had done by then.

        Raises:
            SerialLoRAError: the file is damaged, or another run's.
        """
        if self.file is None or not self.file.exists():
            return TrainingHistory()
        try:
            state = torch.load(self.file, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises whatever the broken bytes led it to
            raise SerialLoRAError(
                f"The saved state {self.file} cannot be read; delete it to start this run anew."
            ) from error
        if not self._fits(state):
            raise SerialLoRAError(
                f"The saved state {self.file} belongs to a run with other settings; delete it or "
                "choose another output folder."
            )
        with torch.no_grad():
            for name, tensor in state["tensors"].items():
                self.tensors[name].copy_(tensor)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["random"])
        if state["random_on_gpu"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random_on_gpu"])
        return TrainingHistory(**state["history"])

    def _fits(self, state: object) -> bool:
        if not isinstance(state, dict) or state.get("run") != self.run or "parts" not in state:
            return False
        shapes = {name: tensor.shape for name, tensor in state["tensors"].items()}
        return shapes == {name: tensor.shape for name, tensor in self.tensors.items()}
