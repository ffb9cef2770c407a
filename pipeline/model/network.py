"""The networks: a table of architectures from torchvision, their heads, and setting their weights.

A new architecture is one row of `ARCHITECTURES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from pipeline.errors import ModelError

HIDDEN_UNITS = 256
HEADS = ("linear", "mlp")

STEMS = ("standard", "unpooled", "full")
"""How much resolution a network keeps before its main stages; not every architecture has all of them."""

Stems = Mapping[str, Callable[[nn.Module], None]]


def _keep_standard_stem(network: nn.Module) -> None:
    pass


def _remove_max_pool(resnet: models.ResNet) -> None:
    resnet.maxpool = nn.Identity()


def _remove_max_pool_and_stride(resnet: models.ResNet) -> None:
    _remove_max_pool(resnet)
    resnet.conv1.stride = (1, 1)


_STANDARD_ONLY: Stems = {"standard": _keep_standard_stem}

# A ResNet's residual stages see a 64-pixel tile at 16 pixels (standard), at 32 (unpooled: without the
# max-pool; four times the work) or at 64 (full: the first convolution keeps every pixel, too; sixteen
# times). The kernels stay the same, so weights fit every stem.
_RESNET_STEMS: Stems = {
    "standard": _keep_standard_stem,
    "unpooled": _remove_max_pool,
    "full": _remove_max_pool_and_stride,
}


@dataclass(frozen=True)
class Architecture:
    """One row of the table: all that is particular to a network of torchvision's layout."""

    constructor: Callable[..., nn.Module]
    """Called with `weights=None`, `num_classes` and `arguments`; it takes three bands."""

    head: str
    """Dotted name of the module that our head replaces, such as `fc` or `classifier.2`."""

    stems: Stems = field(default_factory=lambda: _STANDARD_ONLY)
    """For each of `STEMS` that the network has, the function that gives it to a new network."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the constructor."""

    imagenet: WeightsEnum | None = None
    """The ImageNet weights to start from, if there are any.

    The first that torchvision published: its later ones score higher on ImageNet but, owing to the training
    tricks they were made with, transfer no better (Kornblith et al. 2019, "Do Better ImageNet Models
    Transfer Better?", section 4.2).
    """


# Each residual block starts as the identity: a deep network then trains from scratch without stalling.
_IDENTITY_BLOCKS = {"zero_init_residual": True}

ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": Architecture(
        models.resnet50, "fc", _RESNET_STEMS, _IDENTITY_BLOCKS, models.ResNet50_Weights.IMAGENET1K_V1
    ),
    "wide_resnet50_2": Architecture(
        models.wide_resnet50_2,
        "fc",
        _RESNET_STEMS,
        _IDENTITY_BLOCKS,
        models.Wide_ResNet50_2_Weights.IMAGENET1K_V1,
    ),
    "mobilenet_v2": Architecture(
        models.mobilenet_v2, "classifier", imagenet=models.MobileNet_V2_Weights.IMAGENET1K_V1
    ),
    # Small enough to be trained in tests.
    "resnet18": Architecture(
        models.resnet18, "fc", _RESNET_STEMS, _IDENTITY_BLOCKS, models.ResNet18_Weights.IMAGENET1K_V1
    ),
}


class Head(nn.Sequential):
    """The layers after the backbone: features -> one output per class."""


def build_network(
    architecture: str,
    *,
    bands: int,
    classes: int,
    head: str = "linear",
    dropout: float = 0.0,
    stem: str = "standard",
    upsample: float = 1.0,
) -> nn.Module:
    """Build an untrained network.

    Its input is `(N, bands, H, W)` float32, standardised, which the network itself enlarges by `upsample`
    (bilinear); its output `(N, classes)`: logits for the `linear` head, log-probabilities for the `mlp` head
    (Linear -> ReLU -> Dropout -> Linear -> LogSoftmax). Log-probabilities are valid logits (softmax leaves
    them unchanged), so code that applies a softmax need not know which head it was. Tensors have
    torchvision's names.

    Raises:
        ModelError: a name is not in `ARCHITECTURES`, `HEADS` or `STEMS`, or the architecture does not have
            the stem.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"Unknown architecture '{architecture}'; known are {', '.join(ARCHITECTURES)}.")
    row = ARCHITECTURES[architecture]
    network = row.constructor(weights=None, num_classes=classes, **row.arguments)
    features = _input_features(network.get_submodule(row.head))
    network.set_submodule(row.head, _build_head(head, features, classes, dropout))
    _find_stem(architecture, stem)(network)
    if bands != 3 or upsample != 1:
        _replace_first_convolution(network, bands, upsample)
    return network


def head_of(network: nn.Module) -> Head:
    """Return the part after the backbone, which `freeze` leaves trainable."""
    return _find_head(network)[1]


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


def _build_head(head: str, features: int, classes: int, dropout: float) -> Head:
    if head == "linear":
        return Head(nn.Dropout(dropout), nn.Linear(features, classes))
    if head == "mlp":
        return Head(
            nn.Linear(features, HIDDEN_UNITS),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN_UNITS, classes),
            nn.LogSoftmax(dim=1),
        )
    raise ModelError(f"Unknown head '{head}'; known are {', '.join(HEADS)}.")


def _input_features(head: nn.Module) -> int:
    """Return the number of inputs of the head's first linear layer, which is the backbone's width."""
    return next(module.in_features for module in head.modules() if isinstance(module, nn.Linear))


def _find_stem(architecture: str, stem: str) -> Callable[[nn.Module], None]:
    if stem not in STEMS:
        raise ModelError(f"Unknown stem '{stem}'; known are {', '.join(STEMS)}.")
    stems = ARCHITECTURES[architecture].stems
    if stem not in stems:
        raise ModelError(
            f"The stem '{stem}' is not available for {architecture} (only {', '.join(stems)}): to keep more "
            "resolution, set 'upsample'."
        )
    return stems[stem]


class _UpsamplingConv2d(nn.Conv2d):
    """A convolution that first enlarges its input; the weights keep the names they have without it."""

    def __init__(self, upsample: float, *args: int, **kwargs: bool) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the enlarged `x` (N, B, H, W)."""
        enlarged = F.interpolate(x, scale_factor=self.upsample, mode="bilinear", align_corners=False)
        return super().forward(enlarged)


def first_convolution(network: nn.Module) -> str:
    """Return the name of the convolution that sees the bands."""
    return next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _replace_first_convolution(network: nn.Module, bands: int, upsample: float) -> None:
    name = first_convolution(network)
    old = network.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    kind = nn.Conv2d if upsample == 1 else partial(_UpsamplingConv2d, upsample)
    new = kind(
        bands,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)


def inflate(kernel: Tensor, have: Sequence[str], want: Sequence[str]) -> Tensor:
    """Turn a first convolution's kernel for the bands `have` into one for the bands `want`, by name.

    `(O, len(have), h, w)` -> `(O, len(want), h, w)`. A known band keeps its slice, any other gets the mean
    of all slices, and all are multiplied by len(have) / len(want). So the response to a tile that is the
    same in every band does not change: exactly if no band is dropped, approximately otherwise. This is the
    inflation of I3D (Carreira & Zisserman 2017, section 2.4), over bands instead of frames, and timm's
    `adapt_input_conv`.
    """
    mean = kernel.mean(dim=1)
    slices = [kernel[:, have.index(band)] if band in have else mean for band in want]
    return torch.stack(slices, dim=1) * (len(have) / len(want))


@torch.no_grad()
def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, head: bool = False) -> list[str]:
    """Copy each tensor of `weights` whose name and shape the network has, those of its head only if asked.

    Returns the names of the weights that were not found and stay as they are, without those of a head that
    was not asked for.

    Raises:
        ModelError: fewer than half of the backbone's tensors were found, so the weights belong to another
            architecture.
    """
    own = network.state_dict()
    backbone = own.keys() - _head_names(network)
    wanted = own.keys() if head else backbone
    found = {name for name in wanted if name in weights and weights[name].shape == own[name].shape}
    if 2 * len(found & backbone) < len(backbone):
        raise ModelError(
            f"The initial weights fit only {len(found & backbone)} of the network's {len(backbone)} tensors: "
            "they belong to another architecture."
        )
    for name in found:
        own[name].copy_(weights[name])
    # How many batches a batch norm has seen is a count, not a weight; older files lack it.
    return sorted(name for name in wanted - found if not name.endswith(".num_batches_tracked"))


def _head_names(network: nn.Module) -> set[str]:
    """Return the names of the head's tensors in the network's state."""
    name, head = _find_head(network)
    return {f"{name}.{tensor}" for tensor in head.state_dict()}


def _find_head(network: nn.Module) -> tuple[str, Head]:
    ((name, head),) = ((name, module) for name, module in network.named_modules() if isinstance(module, Head))
    return name, head
