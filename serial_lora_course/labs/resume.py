"""What a training did, and the file from which an interrupted one goes on."""

from __future__ import annotations

import io
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.files import refusals_told


@dataclass
class TrainingHistory:
    """What a run did.

    Attributes:
        losses: one for each optimizer step.
        seconds: of the clock.
        activation_bytes: kept between a forward and its backward pass by what is computed at once: a
            batch, or the part of it that accumulation leaves.
        peak_memory: bytes on the GPU; 0 on the CPU.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    activation_bytes: int = 0
    peak_memory: int = 0


class SavedState:
    """Everything that a training needs to go on where it stopped.

    Args:
        run: what is trained, how and on what, in words: a file of another run is refused.
        file: where to keep it; None for nowhere.
    """

    def __init__(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer, run: str, file: Path | None
    ) -> None:
        self.tensors = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        self.optimizer, self.run, self.file = optimizer, f"{run} of {shapes!r}", file

    @refusals_told()
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
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_on_gpu": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "history": asdict(history),
        }
        stream = io.BytesIO()
        torch.save(state, stream)
        write_whole(self.file, stream.getvalue())

    def restore(self) -> TrainingHistory:
        """Load the file, if there is one; what the run had done by then."""
        if self.file is None or not os.path.lexists(self.file):
            return TrainingHistory()
        try:
            state = torch.load(self.file, weights_only=True, map_location="cpu")
            run = state["run"]
        except Exception as error:  # PyTorch raises half a dozen unrelated kinds
            raise SerialLoRAError(
                f"The saved state {self.file} cannot be read: it is damaged, or another version "
                "wrote it; delete it to start this run anew."
            ) from error
        if run != self.run:
            raise SerialLoRAError(
                f"The saved state {self.file} belongs to a run with other settings; delete it or "
                "choose another output folder."
            )
        with torch.no_grad():
            for name, tensor in state["tensors"].items():
                self.tensors[name].copy_(tensor)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["random_on_gpu"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random_on_gpu"])
        return TrainingHistory(**state["history"])
