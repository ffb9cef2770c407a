"""Model bundles: a folder with the weights and a card that says all that `classify` needs to know.

`model.safetensors` holds the weights: matrices and kernels in half precision, vectors in single. `card.json`
is the card, see `pipeline.model.card`.
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from pipeline.errors import ModelError
from pipeline.files import make_folder, write_files
from pipeline.model.card import ModelCard
from pipeline.model.network import build_network

WEIGHTS = "model.safetensors"
CARD = "card.json"


@dataclass(frozen=True)
class Bundle:
    """A model on disk: its card and the folder it lies in."""

    card: ModelCard
    path: Path

    def load_network(self) -> nn.Module:
        """Return the network in evaluation mode, float32, on the CPU.

        Raises ModelError if the weights are missing, damaged, or not those that the card describes.
        """
        weights_path = self.path / WEIGHTS
        if not weights_path.is_file():
            raise ModelError(f"The model folder {self.path} has no {WEIGHTS}.")
        if digest_of(weights_path) != self.card.digest:
            raise ModelError(f"{weights_path} is not the file that {CARD} describes: its SHA-256 differs.")
        try:
            weights = load_file(weights_path)
        except SafetensorError as error:
            raise ModelError(f"{weights_path} is damaged: {error}.") from error
        with torch.device("meta"):  # the loaded tensors take the place of random ones that cost time
            network = build_network(
                self.card.architecture,
                bands=len(self.card.bands),
                classes=len(self.card.classes),
                head=self.card.head,
                stem=self.card.stem,
                upsample=self.card.upsample,
            )
        try:
            network.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise ModelError(
                f"{weights_path} does not fit the {self.card.architecture} with {len(self.card.bands)} bands "
                f"and {len(self.card.classes)} classes that {CARD} describes."
            ) from error
        return network.float().eval()


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Find a bundle by the name of one that ships, or by its folder, and read its card.

    Raises ModelError, naming the bundles that ship, if there is none.
    """
    candidates = [Path(name_or_path)]
    if len(candidates[0].parts) == 1:
        candidates.append(shipped_models() / name_or_path)
    for path in candidates:
        if (path / CARD).is_file():
            return Bundle(_read_card(path / CARD), path)
    shipped = ", ".join(list_bundles()) or "none"
    raise ModelError(
        f"No model '{name_or_path}': it is neither a folder with a {CARD} "
        f"nor one of those that ship ({shipped})."
    )


def _read_card(path: Path) -> ModelCard:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from error
    try:
        return ModelCard.from_json(document)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def save_bundle(network: nn.Module, card: ModelCard, path: Path) -> Bundle:
    """Write weights and card into the folder `path`, whole or not at all.

    Returns the bundle as `load_bundle` would: its card has the weights' digest. Raises OutputError if
    the folder or a file cannot be written.
    """
    # Vectors (biases, batch-norm statistics) cost nothing and have the wider range: they stay single.
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    weights = save({name: tensor.cpu() for name, tensor in tensors.items()})
    card = replace(card, digest="sha256:" + hashlib.sha256(weights).hexdigest())
    make_folder(path)
    write_files({path / WEIGHTS: weights, path / CARD: _card_bytes(card)})
    return load_bundle(path)


def rewrite_card(bundle: Bundle, **changes: Any) -> Bundle:
    """Change fields of a saved bundle's card, its metrics say; the weights stay."""
    write_files({bundle.path / CARD: _card_bytes(replace(bundle.card, **changes))})
    return load_bundle(bundle.path)


def _card_bytes(card: ModelCard) -> bytes:
    return (json.dumps(card.to_json(), indent=2) + "\n").encode("utf-8")


def list_bundles() -> list[str]:
    """Return the names of the bundles that ship, in alphabetical order."""
    return sorted(card.parent.name for card in shipped_models().glob(f"*/{CARD}"))


def shipped_models() -> Path:
    """Return the folder of the bundles that ship: inside an installed package, else `models/` beside it.

    The environment variable LANDCOVER_MODELS names another one.
    """
    if override := os.environ.get("LANDCOVER_MODELS"):
        return Path(override)
    package = Path(__file__).resolve().parents[1]
    # In this order: beside an installed package `models` may be anybody's.
    packaged = package / "_models"
    return packaged if packaged.is_dir() else package.parent / "models"


def digest_of(path: Path) -> str:
    """Return the file's digest as `sha256:<hex>`."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def standardisation(card: ModelCard, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation as `(1, B, 1, 1)` float32 tensors that broadcast over a batch."""
    shape = (1, len(card.bands), 1, 1)
    mean = torch.tensor(card.mean, dtype=torch.float32, device=device).reshape(shape)
    std = torch.tensor(card.std, dtype=torch.float32, device=device).reshape(shape)
    return mean, std
