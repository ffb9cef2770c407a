"""What the tests of several commands share."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.tiles import TINY_RECIPE


@pytest.fixture
def scene(write_raster) -> Path:
    pixels = np.random.default_rng(0).integers(300, 2500, (3, 128, 192)).astype(np.uint16)
    return write_raster(pixels, descriptions=("B04", "B03", "B02"), tags={"PROCESSING_LEVEL": "Level-1C"})


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return path
