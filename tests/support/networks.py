"""Networks for tests: one so small that it trains in a second, under the name `tiny`; a card's network."""

import pytest
import torch
from torch import nn

from pipeline.model import network
from pipeline.model.card import ModelCard


class TinyNetwork(nn.Module):
    """Laid out as torchvision's ResNets are: convolutions and batch norms, then `fc`."""

    def __init__(self, weights: None, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.pool(x).flatten(1))


def add_tiny_network(patch: pytest.MonkeyPatch | None = None) -> None:
    """Make `tiny` an architecture, until pytest's monkeypatch is undone or for good."""
    row = network.Architecture(TinyNetwork, head="fc")
    if patch is None:
        network.ARCHITECTURES["tiny"] = row
    else:
        patch.setitem(network.ARCHITECTURES, "tiny", row)


def network_of(card: ModelCard) -> nn.Module:
    """Return an untrained network that the card describes, always the same, in evaluation mode."""
    torch.manual_seed(0)
    return network.build_network(
        card.architecture,
        bands=len(card.bands),
        classes=len(card.classes),
        head=card.head,
        stem=card.stem,
        upsample=card.upsample,
    ).eval()
