"""Initial weights of a network: ImageNet's, those in a file, or a bundle's."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import TrainingError
from pipeline.model.bundle import load_bundle
from pipeline.model.card import ModelCard
from pipeline.model.network import ARCHITECTURES, first_convolution, inflate, load_weights
from pipeline.model.weights import load_network
from pipeline.training.recipe import IMAGENET, Recipe
from pipeline.training.split_files import Split, known_split
from pipeline.values import NATURAL_COLOR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start training from."""

    source: str
    """The recipe's name for them."""

    tensors: dict[str, Tensor]
    """By torchvision's names."""

    card: ModelCard | None = None
    """The bundle's, if they come from one."""

    split: Split | None = None
    """The tiles that the bundle was trained with, if it says so."""


def find_initial_weights(recipe: Recipe) -> InitialWeights | None:
    """Fetch or read the recipe's initial weights; None if they are random.

    Raises:
        TrainingError: a file is missing or damaged, or ImageNet's weights cannot be fetched.
        ModelError: there is no such bundle.
    """
    source = recipe.initial_weights
    if source is None:
        return None
    if source == IMAGENET:
        return InitialWeights(source, _fetch_imagenet(recipe.architecture))
    if source.endswith(".safetensors"):
        return InitialWeights(source, _read(Path(source)))
    bundle = load_bundle(source)
    return InitialWeights(source, load_network(bundle).state_dict(), bundle.card, known_split(bundle.path))


def start_from(initial: InitialWeights, network: nn.Module, card: ModelCard) -> None:
    """Load the initial weights into the network that `card` describes, its first convolution band by band.

    The head is loaded too if the weights are a bundle's with the same head and classes; if not, it stays
    random.

    Raises:
        ModelError: the weights are of another architecture.
        TrainingError: it is unknown which bands they are for.
    """
    weights = dict(initial.tensors)
    first = f"{first_convolution(network)}.weight"
    if first in weights:
        weights[first] = inflate(weights[first], _bands(initial, weights[first], card), card.bands)
    same_head = initial.card is not None and (
        initial.card.head == card.head
        and [c.name for c in initial.card.classes] == [c.name for c in card.classes]
    )
    untouched = load_weights(network, weights, head=same_head)
    log.info(
        "starting from %s: %s", Path(initial.source).name, "head and all" if same_head else "the head is new"
    )
    if untouched:
        log.warning(
            "%s has no weights for %s: they start at random", Path(initial.source).name, ", ".join(untouched)
        )


def _bands(initial: InitialWeights, kernel: Tensor, card: ModelCard) -> tuple[str, ...]:
    if initial.card is not None:
        return initial.card.bands
    if kernel.shape[1] == len(NATURAL_COLOR):
        return NATURAL_COLOR
    if kernel.shape[1] == len(card.bands):
        return card.bands
    raise TrainingError(
        f"The initial weights {initial.source} are for {kernel.shape[1]} bands, but do not say for which: "
        "name a bundle, whose card says so."
    )


def _fetch_imagenet(architecture: str) -> dict[str, Tensor]:
    """Return the ImageNet weights that the architecture's row in the table names."""
    weights = ARCHITECTURES[architecture].imagenet
    if weights is None:
        raise TrainingError(
            f"No ImageNet weights are known for {architecture}: let 'initial_weights' name a file or bundle."
        )
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; not the published file
        raise TrainingError(
            f"The ImageNet weights of {architecture} cannot be fetched from {weights.url} ({error}): train "
            f"where there is a network, or put that file into {torch.hub.get_dir()}/checkpoints."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise TrainingError(
            f"The recipe's initial weights {path} do not exist: put the file there, correct "
            "'initial_weights', or leave that out to start at random."
        )
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"The recipe's initial weights {path} cannot be read: {error}.") from error
