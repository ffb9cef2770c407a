"""Checkpoints: a run's last state, from which it can be resumed exactly."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch

from pipeline.errors import TrainingError
from pipeline.files import write_file
from pipeline.training.history import Row
from pipeline.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"


class Stateful(Protocol):
    """What PyTorch's networks, optimizers and scalers have in common: a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore a state."""


@dataclass
class Progress:
    """How far a run has come; epochs count from 0."""

    epoch: int = 0
    """The next one."""

    best_epoch: int = -1
    """The one with the best validation so far; -1 before any."""

    best_accuracy: float = 0.0
    """Of that epoch's validation, from 0 to 1."""

    best_loss: float = float("inf")
    """Of that epoch's validation."""

    validations_since: int = 0
    """Validations of the last stage that brought no improvement."""

    history: list[Row] = field(default_factory=list)
    """A row an epoch."""


def save_checkpoint(path: Path, recipe: Recipe, parts: Mapping[str, Stateful], progress: Progress) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OutputError: it cannot be written; the previous one stays.
    """
    buffer = io.BytesIO()
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"recipe": recipe.to_dict(), "progress": asdict(progress), **states}, buffer)
    write_file(path, buffer.getbuffer())


def read_checkpoint(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the states that `restore` takes.

    Raises:
        TrainingError: the checkpoint is damaged, or the recipe has changed since.
    """
    try:
        states = torch.load(path, weights_only=True, map_location="cpu")
        then, now = states["recipe"], recipe.to_dict()
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
        raise TrainingError(
            f"The checkpoint {path} is damaged: start again with `overwrite` in place of `resume`."
        ) from error
    if then != now:
        changed = min(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
        raise TrainingError(
            f"The checkpoint {path} is of another recipe ('{changed}' differs): "
            "give another output folder, or start again with `overwrite` in place of `resume`."
        )
    return states


def restore(states: Mapping[str, Any], parts: Mapping[str, Stateful]) -> Progress:
    """Set the parts to their states in the checkpoint, and return its progress.

    A part without a state there keeps its own: float16's scaler, if the run started in another precision.
    """
    for name, part in parts.items():
        if states[name]:
            part.load_state_dict(states[name])
    return Progress(**states["progress"])
