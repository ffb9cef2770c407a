"""A training run's state: the network, its average, the optimizer, and how far they have come."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.errors import TrainingError
from pipeline.model.card import ModelCard
from pipeline.model.network import build_network, freeze, unfreeze
from pipeline.model.weights import standardisation
from pipeline.training.checkpoint import Progress, Stateful
from pipeline.training.distributed import Team
from pipeline.training.execution import compile_network, uses_float16
from pipeline.training.initial_weights import InitialWeights, start_from
from pipeline.training.objective import Objective
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.schedule import build_optimizer

EMA_EVERY = 8
"""Steps from one averaging to the next. Averaging costs more than the optimizer, and 30 times an epoch is
often enough."""


@dataclass
class Run:
    """What one training run works with."""

    recipe: Recipe
    """What to do."""

    team: Team
    """The processes that train together, and this one's device."""

    card: ModelCard
    """The card of the model, without what training finds out."""

    network: nn.Module
    """What is trained."""

    average: AveragedModel
    """The network with averaged weights, which are the ones that are validated and kept."""

    optimizer: torch.optim.Optimizer
    """The recipe's optimizer of the network's parameters."""

    scaler: torch.amp.GradScaler
    """Scales the loss where gradients would be too small for float16; elsewhere it does nothing."""

    mean: Tensor
    """(1, B, 1, 1), of training values."""

    std: Tensor
    """(1, B, 1, 1), of training values."""

    objective: Objective
    """Turns batches into tiles and targets."""

    opinions: Tensor | None = None
    """(N, C): the teacher's probabilities for each training tile, if the recipe has them cached."""

    progress: Progress = field(default_factory=Progress)
    """How far the run has come."""

    stage: Stage | None = None
    """The stage that the network is prepared for."""

    forward: Callable[[Tensor], Tensor] | None = None
    """The network as the stage runs it."""

    saved: float = field(default_factory=time.monotonic)
    """When the last checkpoint was written, in seconds of `time.monotonic`."""

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return what changes as the run proceeds and a checkpoint must hold."""
        names = ("network", "average", "optimizer", "scaler")
        return {name: getattr(self, name) for name in names}

    @property
    def out_of_patience(self) -> bool:
        """Tell whether the recipe's patience with validations that bring no improvement is used up."""
        patience = self.recipe.patience
        return patience is not None and self.progress.validations_since >= patience

    def enter_stage(self, stage: Stage) -> Callable[[Tensor], Tensor]:
        """Return the network as the stage runs it, after preparing it if the stage is new."""
        if self.forward is None or stage != self.stage:
            (freeze if stage.freeze else unfreeze)(self.network)
            joined = self.team.join_gradients(self.network)
            self.forward = compile_network(joined, self.recipe, self.team.device)
            self.stage = stage
        return self.forward

    def update_average(self, step: int, steps: int) -> None:
        """Take the network's weights into the average, if it is due at this step of the epoch."""
        if self.team.is_first and (step % EMA_EVERY == 0 or step + 1 == steps):
            self.average.update_parameters(self.network)

    @contextmanager
    def explain_out_of_memory(self) -> Iterator[None]:
        """Raise TrainingError that says what to change if the device's memory does not suffice."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"The memory of {self.team.device} cannot hold a batch of "
                f"{self.recipe.batch_size // self.team.size}: lower the recipe's batch_size, and its "
                "learning_rate with it, or use more GPUs."
            ) from error


def start_run(recipe: Recipe, card: ModelCard, initial: InitialWeights | None, team: Team) -> Run:
    """Return a run at epoch 0, with the network at its initial weights.

    Raises:
        TrainingError, ModelError: initial weights or teacher do not suit the model that `card` describes.
    """
    mean, std = standardisation(card, team.device)
    network = build_network(
        recipe.architecture,
        bands=len(recipe.bands),
        classes=len(card.classes),
        head=recipe.head,
        dropout=recipe.dropout,
        stem=recipe.stem,
        upsample=recipe.upsample,
    )
    if initial is not None:
        start_from(initial, network, card)
    network.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay**EMA_EVERY), use_buffers=True
    )
    float16 = uses_float16(recipe, team.device)
    return Run(
        recipe=recipe,
        team=team,
        card=card,
        network=network,
        average=average.eval(),
        optimizer=build_optimizer(network, recipe, fused=not float16),
        scaler=torch.amp.GradScaler(team.device.type, enabled=float16),
        mean=mean,
        std=std,
        objective=Objective(recipe, card, team),
    )
