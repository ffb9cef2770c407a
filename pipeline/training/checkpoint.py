"""The last state of a run, from which it goes on exactly."""

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
    """What PyTorch's networks, optimizers and scalers have in common."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go back to a state."""


@dataclass
class Progress:
    """How far a run has come; epochs count from 0."""

    epoch: int = 0  # the next one
    best_epoch: int = -1
    best_accuracy: float = 0.0
    best_loss: float = float("inf")
    validations_since: int = 0  # the best one, of the last stage alone
    history: list[Row] = field(default_factory=list)  # a row an epoch


def save_checkpoint(path: Path, recipe: Recipe, parts: Mapping[str, Stateful], progress: Progress) -> None:
    """Write it whole or not at all; raises OutputError, and the one before stays, if it cannot be written."""
    buffer = io.BytesIO()
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"recipe": recipe.to_dict(), "progress": asdict(progress), **states}, buffer)
    write_file(path, buffer.getbuffer())


def read_checkpoint(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Return what `restore` takes.

    Raises TrainingError if the checkpoint is damaged or was written by a run with another recipe.
    """
    try:
        states = torch.load(path, weights_only=True, map_location="cpu")
        then, now = states["recipe"], recipe.to_dict()
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
        raise TrainingError(
            f"The checkpoint {path} is damaged: begin anew with `overwrite` in place of `resume`."
        ) from error
    if then != now:
        changed = min(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
        raise TrainingError(
            f"The checkpoint {path} is of another recipe ('{changed}' differs): "
            "give another output folder, or begin anew with `overwrite` in place of `resume`."
        )
    return states


def restore(states: Mapping[str, Any], parts: Mapping[str, Stateful]) -> Progress:
    """Set the parts to where the checkpoint was written, and return how far that was.

    A part without a state there begins anew: float16's scaler, in a run that began in another precision.
    """
    for name, part in parts.items():
        if states[name]:
            part.load_state_dict(states[name])
    return Progress(**states["progress"])
