"""Where a network starts from: ImageNet's weights, a file of weights, or any bundle."""

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
from pipeline.training.splits import Split, known_split
from pipeline.values import NATURAL_COLOR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """Tensors by torchvision's names; of a bundle also its card, and the split it was trained with."""

    source: str
    tensors: dict[str, Tensor]
    card: ModelCard | None = None
    split: Split | None = None


def find_initial_weights(recipe: Recipe) -> InitialWeights | None:
    """Fetch or read what the recipe starts from; None if it starts at random.

    Raises TrainingError if a file is absent or damaged or ImageNet's weights cannot be fetched, ModelError
    if there is no such bundle.
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
    """Set the network that `card` describes to the initial weights, its first convolution band by band.

    The head is taken over if the weights are of a bundle with the same head and classes; if not, it stays
    random. Raises ModelError if the weights are of another architecture, TrainingError if they are for
    bands that nothing names.
    """
    weights = dict(initial.tensors)
    first = f"{first_convolution(network)}.weight"
    if first in weights:
        weights[first] = inflate(weights[first], _bands(initial, weights[first], card), card.bands)
    goes_on = initial.card is not None and (
        initial.card.head == card.head
        and [c.name for c in initial.card.classes] == [c.name for c in card.classes]
    )
    untouched = load_weights(network, weights, head=goes_on)
    log.info(
        "starting from %s: %s", Path(initial.source).name, "head and all" if goes_on else "the head is new"
    )
    if untouched:
        log.warning(
            "%s has nothing for %s: they start at random", Path(initial.source).name, ", ".join(untouched)
        )


def _bands(initial: InitialWeights, kernel: Tensor, card: ModelCard) -> tuple[str, ...]:
    if initial.card is not None:
        return initial.card.bands
    if kernel.shape[1] == len(NATURAL_COLOR):
        return NATURAL_COLOR
    if kernel.shape[1] == len(card.bands):
        return card.bands
    raise TrainingError(
        f"The initial weights {initial.source} are for {kernel.shape[1]} bands, and nothing says for which: "
        "name a bundle, whose card does."
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
    except (OSError, RuntimeError) as error:  # no network; another file than was published
        raise TrainingError(
            f"The ImageNet weights of {architecture} cannot be fetched from {weights.url} ({error}): train "
            f"where there is a network, or put that file into {torch.hub.get_dir()}/checkpoints."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise TrainingError(
            f"The recipe's initial weights {path} are not there: put the file there, let 'initial_weights' "
            "name it, or leave that out to start at random."
        )
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"The recipe's initial weights {path} cannot be read: {error}.") from error
