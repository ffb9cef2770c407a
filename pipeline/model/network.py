"""The networks: torchvision backbones with a head for land-cover classes, and freezing of the backbone."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from pipeline.errors import ModelError

HIDDEN_UNITS = 256
HEADS = ("linear", "mlp")

# How much resolution a ResNet keeps before its residual stages, which see a 64-pixel tile at 16 pixels
# (standard), at 32 (unpooled: without the max-pool; four times the work) or at 64 (full: the first
# convolution keeps every pixel, too; sixteen times). The kernels stay, and so do weights trained with them.
STEMS = ("standard", "unpooled", "full")

# Name -> (constructor, the attribute that holds the classifier in torchvision's layout).
_BACKBONES = {
    "resnet50": (models.resnet50, "fc"),
    "wide_resnet50_2": (models.wide_resnet50_2, "fc"),
    "mobilenet_v2": (models.mobilenet_v2, "classifier"),
    "resnet18": (models.resnet18, "fc"),  # small enough to be trained in tests
}
ARCHITECTURES = tuple(_BACKBONES)


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

    Input is `(N, bands, H, W)` float32, standardised, which the network itself enlarges by `upsample`
    (bilinear); output `(N, classes)`: logits for the `linear` head, log-probabilities for the `mlp` head
    (Linear -> ReLU -> Dropout -> Linear -> LogSoftmax). Log-probabilities are valid logits (softmax leaves
    them unchanged), so that whoever applies a softmax need not know which head it was. Tensors have
    torchvision's names.

    Raises ModelError for a name that is not in `ARCHITECTURES`, `HEADS` or `STEMS`, or a stem that the
    architecture does not have.
    """
    if architecture not in _BACKBONES:
        raise ModelError(f"Unknown architecture '{architecture}'; known are {', '.join(ARCHITECTURES)}.")
    constructor, classifier = _BACKBONES[architecture]
    # Each residual block starts as the identity: a deep network then trains from scratch without stalling.
    options = {"zero_init_residual": True} if classifier == "fc" else {}
    network = constructor(weights=None, num_classes=classes, **options)
    setattr(network, classifier, _build_head(head, _features(network, classifier), classes, dropout))
    _set_stem(network, stem)
    if bands != 3 or upsample != 1:
        _replace_first_convolution(network, bands, upsample)
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


def _set_stem(network: nn.Module, stem: str) -> None:
    if stem not in STEMS:
        raise ModelError(f"Unknown stem '{stem}'; known are {', '.join(STEMS)}.")
    if stem == "standard":
        return
    if not isinstance(network, models.ResNet):
        raise ModelError(
            f"The stem '{stem}' is for ResNets; to keep resolution in another network, set upsample."
        )
    network.maxpool = nn.Identity()
    if stem == "full":
        network.conv1.stride = (1, 1)


class _UpsamplingConv2d(nn.Conv2d):
    """A convolution that first enlarges its input: a network's weights keep their names with it."""

    def __init__(self, upsample: float, *args: int, **kwargs: bool):
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

    `(O, len(have), h, w)` -> `(O, len(want), h, w)`. A band that is known keeps its slice, another one gets
    the mean of all slices, and all are multiplied by len(have) / len(want). So the response to a tile that
    is the same in every band stays as it was, exactly where no band is dropped, about so otherwise: the
    inflation of I3D (Carreira & Zisserman 2017, section 2.4), over bands in place of frames, and what timm's
    `adapt_input_conv` does.
    """
    mean = kernel.mean(dim=1)
    slices = [kernel[:, have.index(band)] if band in have else mean for band in want]
    return torch.stack(slices, dim=1) * (len(have) / len(want))


@torch.no_grad()
def load_weights(network: nn.Module, weights: dict[str, Tensor], *, head: bool = False) -> list[str]:
    """Copy every tensor of `weights` whose name and shape the network has; those of its head only if asked.

    Returns the names in the network that were left as they are, apart from a head that was not asked for.
    Raises ModelError if fewer than half of the backbone's tensors are found: then the weights belong to
    another architecture.
    """
    own = network.state_dict()
    of_head = {id(tensor) for tensor in head_of(network).state_dict(keep_vars=True).values()}
    backbone = {
        name for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) not in of_head
    }
    wanted = set(own) if head else backbone
    found = {name for name in wanted if name in weights and weights[name].shape == own[name].shape}
    if 2 * len(found & backbone) < len(backbone):
        raise ModelError(
            f"The initial weights fit only {len(found & backbone)} of the network's {len(backbone)} tensors: "
            "they belong to another architecture."
        )
    for name in found:
        own[name].copy_(weights[name])
    return sorted(wanted - found)
