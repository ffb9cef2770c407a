"""Small maps made by code, for the tests of everything that writes them."""

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from pipeline.maps.landcover_map import LandcoverMap
from pipeline.model.card import LandCoverClass

CLASSES = (
    LandCoverClass(1, "Forest", "#1b7a34"),
    LandCoverClass(2, "Pasture", "#c5e1a5"),
    LandCoverClass(3, "River", "#4fc3f7"),
)
UTM33 = CRS.from_epsg(32633)


def make_map(
    class_id: np.ndarray | list[list[int]],
    confidence: np.ndarray | list[list[int]] | int = 80,
    *,
    crs: CRS | None = UTM33,
    origin: tuple[float, float] = (400_000.0, 5_400_000.0),
    cell: float = 640.0,
    footprint: tuple[float, float] | None = None,
) -> LandcoverMap:
    """A map whose upper left corner is `origin`; the scene ends with its last cells unless stated."""
    class_id = np.asarray(class_id, dtype=np.uint8)
    rows, cols = class_id.shape
    confidence = np.broadcast_to(np.asarray(confidence, dtype=np.uint8), class_id.shape)
    chosen = np.arange(1, len(CLASSES) + 1)[:, np.newaxis, np.newaxis] == class_id
    probabilities = np.where(class_id == 0, np.nan, chosen).astype(np.float32)
    return LandcoverMap(
        class_id=class_id,
        confidence=np.where(class_id == 0, 255, confidence).astype(np.uint8),
        probabilities=probabilities,
        classes=CLASSES,
        crs=crs,
        transform=Affine.translation(*origin) @ Affine.scale(cell, -cell),
        footprint=footprint or (float(cols), float(rows)),
    )
