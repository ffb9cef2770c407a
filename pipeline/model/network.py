"""The networks: torchvision backbones with a head for land-cover classes, and freezing of the backbone."""

import torch
from torch import nn
from torchvision import models

from pipeline.errors import ModelError

HIDDEN_UNITS = 256
HEADS = ("linear", "mlp")

# Name -> (constructor, the attribute that holds the classifier in torchvision's layout).
_BACKBONES = {
    "resnet50": (models.resnet50, "fc"),
    "wide_resnet50_2": (models.wide_resnet50_2, "fc"),
    "mobilenet_v2": (models.mobilenet_v2, "classifier"),
    "resnet18": (models.resnet18, "fc"),  # small enough to be trained in tests
}
ARCHITECTURES = tuple(_BACKBONES)


def build_network(
    architecture: str, *, bands: int, classes: int, head: str = "linear", dropout: float = 0.0
) -> nn.Module:
    """Build an untrained network.

    Input is `(N, bands, H, W)` float32, standardised; output `(N, classes)`: logits for the `linear`
    head, log-probabilities for the `mlp` head (Linear -> ReLU -> Dropout -> Linear -> LogSoftmax).
    Log-probabilities are valid logits (softmax leaves them unchanged), so that whoever applies a
    softmax need not know which head it was.

    Raises ModelError for a name that is not in `ARCHITECTURES` or `HEADS`.
    """
    if architecture not in _BACKBONES:
        raise ModelError(f"Unknown architecture '{architecture}'; known are {', '.join(ARCHITECTURES)}.")
    constructor, classifier = _BACKBONES[architecture]
    # Each residual block starts as the identity: a deep network then trains from scratch without stalling.
    options = {"zero_init_residual": True} if classifier == "fc" else {}
    network = constructor(weights=None, num_classes=classes, **options)
    setattr(network, classifier, _build_head(head, _features(network, classifier), classes, dropout))
    if bands != 3:
        _replace_first_convolution(network, bands)
    return network


def head_of(network: nn.Module) -> nn.Module:
    """Return the part after the backbone, the one that `freeze` leaves trainable."""
    return network.get_submodule("fc" if hasattr(network, "fc") else "classifier")


def freeze(network: nn.Module) -> None:
    """Set up training of the head alone.

    The backbone's parameters get no gradient, and it runs in evaluation mode: its batch-norm
    statistics, which need no gradient to drift, stay too.
    """
    network.eval().requires_grad_(False)
    head_of(network).train().requires_grad_(True)


def unfreeze(network: nn.Module) -> None:
    """Set up training of every parameter and of the batch-norm statistics."""
    network.train().requires_grad_(True)


def _build_head(head: str, features: int, classes: int, dropout: float) -> nn.Module:
    if head == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes))
    if head == "mlp":
        return nn.Sequential(
            nn.Linear(features, HIDDEN_UNITS),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN_UNITS, classes),
            nn.LogSoftmax(dim=1),
        )
    raise ModelError(f"Unknown head '{head}'; known are {', '.join(HEADS)}.")


def _features(network: nn.Module, classifier: str) -> int:
    """Return the width of the backbone's output, the number of inputs of its last linear layer."""
    linears = [m for m in getattr(network, classifier).modules() if isinstance(m, nn.Linear)]
    return linears[-1].in_features


def _replace_first_convolution(network: nn.Module, bands: int) -> None:
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                replacement = nn.Conv2d(
                    bands,
                    child.out_channels,
                    child.kernel_size,  # type: ignore[arg-type]
                    child.stride,  # type: ignore[arg-type]
                    child.padding,  # type: ignore[arg-type]
                    bias=child.bias is not None,
                )
                nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
                setattr(parent, name, replacement)
                return
    raise AssertionError("every backbone starts with a convolution")


@torch.no_grad()
def load_backbone(network: nn.Module, weights: dict[str, torch.Tensor]) -> list[str]:
    """Copy every tensor of `weights` whose name and shape the network has, except the head's.

    Returns the names in the network that were left as they are. Raises ModelError if fewer than half
    of the backbone's tensors are found: then the weights belong to another architecture.
    """
    own = network.state_dict()
    head_names = {id(tensor) for tensor in head_of(network).state_dict(keep_vars=True).values()}
    backbone = {
        name for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) not in head_names
    }
    found = {name for name in backbone if name in weights and weights[name].shape == own[name].shape}
    if 2 * len(found) < len(backbone):
        raise ModelError(
            f"The initial weights fit only {len(found)} of the network's {len(backbone)} tensors: "
            "they belong to another architecture."
        )
    for name in found:
        own[name].copy_(weights[name])
    return sorted(backbone - found)
