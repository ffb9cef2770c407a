"""The card of a model as EuroSAT's RGB tiles make it, for tests that need no weights."""

from pipeline.model.card import LandCoverClass, ModelCard
from pipeline.values import Scaling

RGB_CARD = ModelCard(
    name="rgb",
    architecture="resnet50",
    head="linear",
    bands=("B04", "B03", "B02"),
    level="l1c",
    scaling=Scaling((0.0, 0.275), (1.0, 255.0)),
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
    tile_size=64,
    gsd=10.0,
    classes=(LandCoverClass(1, "Forest", "#006600"),),
)
