"""Model cards for tests that need no weights, and how to break a card on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.model.card import LandCoverClass, ModelCard
from pipeline.model.classes import number_classes
from pipeline.values import EUROSAT_RGB_SCALING, NATURAL_COLOR, Scaling

# As EuroSAT's RGB tiles make it.
RGB_CARD = ModelCard(
    name="rgb",
    architecture="resnet50",
    head="linear",
    bands=NATURAL_COLOR,
    level="l1c",
    scaling=EUROSAT_RGB_SCALING,
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
    tile_size=64,
    gsd=10.0,
    classes=(LandCoverClass(1, "Forest", "#006600"),),
)

# Every field differs from its default.
FULL_CARD = ModelCard(
    name="tiny",
    architecture="resnet18",
    head="mlp",
    bands=("B04", "B03", "B02", "B08"),
    level="l1c",
    scaling=Scaling(reflectance=(0.0, 0.275), values=(1.0, 255.0)),
    mean=(87.8, 97.0, 104.0, 120.5),
    std=(51.7, 34.9, 29.5, 40.25),
    tile_size=64,
    gsd=10.0,
    classes=number_classes(["Forest", "River", "Vineyard"]),
    temperature=1.25,
    metrics={"split": "validation", "accuracy": 0.9},
    training={"recipe": {"seed": 0}, "best_epoch": 3},
    license="MIT",
    digest="sha256:0123",
    stem="unpooled",
    upsample=1.5,
)


def edit_card(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the card of the bundle in `folder`, for better or worse."""
    document = json.loads((folder / "card.json").read_text())
    edit(document)
    (folder / "card.json").write_text(json.dumps(document))


TINY_CARD = ModelCard(
    name="tiny",
    architecture="tiny",
    head="linear",
    bands=NATURAL_COLOR,
    level="l1c",
    scaling=EUROSAT_RGB_SCALING,
    mean=(90.0, 100.0, 110.0),
    std=(50.0, 40.0, 30.0),
    tile_size=32,
    gsd=10.0,
    classes=number_classes(["Field", "Forest", "Water"]),
)
"""Of the architecture that `support.networks` adds."""
