"""What many tests share: the real data, the shipped model, tiny rasters made by code."""

import codecs
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import settings
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

LIGHT = "eurosat-rgb-mobilenetv2"


# The machines that run this are small and busy: how long an example takes says nothing.
settings.register_profile("landcover", deadline=None)
settings.load_profile("landcover")

UTM_10M = from_origin(399_960, 5_300_040, 10, 10)


@pytest.fixture(scope="session")
def landcover_data() -> Path:
    """Return the folder of real data that LANDCOVER_DATA names."""
    folder = os.environ.get("LANDCOVER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: LANDCOVER_DATA does not name a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def scenes(landcover_data: Path) -> Path:
    return landcover_data / "scenes"


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a (B, H, W) array as a GeoTIFF in UTM 33N at 10 m."""

    def write(
        pixels: np.ndarray,
        name: str = "scene.tif",
        *,
        crs: str | None = "EPSG:32633",
        transform: Affine | None = UTM_10M,
        nodata: float | None = None,
        descriptions: tuple[str, ...] = (),
        tags: dict[str, str] | None = None,
        **profile: object,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bands, height, width = pixels.shape
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=bands,
            height=height,
            width=width,
            dtype=pixels.dtype,
            crs=CRS.from_user_input(crs) if crs else None,
            transform=transform,
            nodata=nodata,
            **profile,
        ) as raster:
            raster.write(pixels)
            for i, description in enumerate(descriptions):
                raster.set_band_description(i + 1, description)
            if tags:
                raster.update_tags(**tags)
        return path

    return write


@pytest.fixture(scope="session")
def light():
    """Return the light bundle: quick enough for tests of the whole path."""
    from pipeline.model.bundle import load_bundle

    return load_bundle(LIGHT)


@pytest.fixture(scope="session")
def light_predictor(light):
    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network
    from pipeline.options import PredictorOptions

    return Predictor(load_network(light), light.card, PredictorOptions(device="cpu"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder in which a test may take away permissions, and run as a user to whom they apply."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    codecs.lookup("utf-8-sig")  # this user may not read Python's own modules
    try:
        if user == 0:
            folder.chmod(0o777)
            os.seteuid(65_534)
        yield folder
    finally:
        os.seteuid(user)
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o777)
        shutil.rmtree(folder)
