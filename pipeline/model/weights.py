"""A bundle's network in PyTorch: saving it, loading it, and the tensors that standardise its input.

`model.safetensors` holds matrices and kernels in half precision, vectors in single precision.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from pipeline.errors import ModelError
from pipeline.files import make_folder, write_files
from pipeline.model.bundle import CARD, WEIGHTS, Bundle, card_bytes, digest_of, load_bundle
from pipeline.model.card import ModelCard
from pipeline.model.network import build_network


def load_network(bundle: Bundle) -> nn.Module:
    """Return the bundle's network in evaluation mode, float32, on the CPU.

    Raises:
        ModelError: the weights are missing or damaged, or do not match the card.
    """
    card, path = bundle.card, bundle.path / WEIGHTS
    if not path.is_file():
        raise ModelError(f"The model folder {bundle.path} has no {WEIGHTS}.")
    if digest_of(path) != card.digest:
        raise ModelError(f"{path} is not the file that {CARD} describes: its SHA-256 differs.")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged: {error}.") from error
    with torch.device("meta"):  # no time lost on random weights that are replaced at once
        network = build_network(
            card.architecture,
            bands=len(card.bands),
            classes=len(card.classes),
            head=card.head,
            stem=card.stem,
            upsample=card.upsample,
        )
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit the {card.architecture} with {len(card.bands)} bands "
            f"and {len(card.classes)} classes that {CARD} describes."
        ) from error
    return network.float().eval()


def save_bundle(network: nn.Module, card: ModelCard, path: Path) -> Bundle:
    """Write weights and card into the folder `path`, whole or not at all.

    Returns the bundle as `load_bundle` does, its card with the digest of the weights.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    # Vectors (biases, batch-norm statistics) are small and need the wider range: they stay single.
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    weights = save({name: tensor.cpu() for name, tensor in tensors.items()})
    card = replace(card, digest="sha256:" + hashlib.sha256(weights).hexdigest())
    make_folder(path)
    write_files({path / WEIGHTS: weights, path / CARD: card_bytes(card)})
    return load_bundle(path)


def standardisation(card: ModelCard, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation as `(1, B, 1, 1)` float32 tensors that broadcast over a batch."""
    shape = (1, len(card.bands), 1, 1)
    mean = torch.tensor(card.mean, dtype=torch.float32, device=device).reshape(shape)
    std = torch.tensor(card.std, dtype=torch.float32, device=device).reshape(shape)
    return mean, std
