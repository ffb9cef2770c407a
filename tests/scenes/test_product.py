"""The product seam: a new format is one class and one line in the registry, and nothing else."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import SceneError
from pipeline.scenes import registry
from pipeline.scenes.product import BandSource, MaskSource, Product, ProductFacts
from pipeline.scenes.scene import open_scene
from tests.support.cards import RGB_CARD
from tests.support.scenes import read_all, reflectances

L2A_CARD = replace(RGB_CARD, level="l2a")
SCALE, OFFSET = 2.75e-5, -7273
TIME = "2024-06-01T10:30:00+00:00"
CLOUD_BIT = 8


@dataclass(frozen=True)
class CloudBitDecoder:
    meaning: str = "Clouds are left out by the quality band"

    def valid(self, values: npt.NDArray) -> npt.NDArray[np.bool_]:
        return values & CLOUD_BIT == 0


@dataclass(frozen=True, kw_only=True)
class JsonProduct(Product):
    """A folder whose `product.json` names its bands, scale, offset and time."""

    format_name = "JSON"
    files: dict[str, str]

    @classmethod
    def recognise(cls, path: Path) -> str | None:
        return path.name if (path / "product.json").is_file() else None

    @classmethod
    def open(cls, path: Path) -> "JsonProduct | None":
        if not cls.recognise(path):
            return None
        told = json.loads((path / "product.json").read_text())
        return cls(
            name=path.name,
            facts=ProductFacts(
                level="l2a",
                scales=dict.fromkeys(told["bands"], told["scale"]),
                offsets=dict.fromkeys(told["bands"], told["offset"]),
                acquired=datetime.fromisoformat(told["time"]),
            ),
            nodata=1,
            mask=MaskSource(str(path / told["quality"]), CloudBitDecoder()) if told["quality"] else None,
            files={band: str(path / file) for band, file in told["bands"].items()},
        )

    def band_source(self, band: str, resolution: int) -> BandSource:
        if band not in self.files:
            raise SceneError(f"The product {self.name} has no band {band}.")
        return BandSource(self.files[band], 1)


@pytest.fixture
def write_json_product(
    write_raster: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Return a function that writes (3, H, W) reflectance of B04, B03 and B02 as a product."""
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, JsonProduct))

    def write(stored: npt.NDArray, quality: npt.NDArray | None = None) -> Path:
        for band, pixels in zip(("r", "g", "b"), stored, strict=True):
            write_raster(pixels[None], f"LC09_x/{band}.tif")
        if quality is not None:
            write_raster(quality[None], "LC09_x/qa.tif")
        told = {
            "bands": {"B04": "r.tif", "B03": "g.tif", "B02": "b.tif"},
            "scale": SCALE,
            "offset": OFFSET,
            "time": TIME,
            "quality": None if quality is None else "qa.tif",
        }
        (tmp_path / "LC09_x/product.json").write_text(json.dumps(told))
        return tmp_path / "LC09_x"

    return write


def test_a_products_own_calibration_gives_its_reflectance(write_json_product):
    reflectance = np.linspace(0.01, 0.25, 3 * 70 * 80).reshape(3, 70, 80)
    stored = np.round(reflectance / SCALE - OFFSET).astype(np.uint16)
    scene = open_scene(write_json_product(stored), L2A_CARD)
    values = scene.pixel_transform.apply(read_all(scene)[0])
    np.testing.assert_allclose(L2A_CARD.scaling.to_reflectance(values), reflectance, atol=SCALE)
    assert (scene.name, scene.encoding.level) == ("LC09_x", "l2a")
    assert scene.acquired == datetime(2024, 6, 1, 10, 30, tzinfo=UTC)
    assert not [note for note in scene.notes if note.level == "warning"]


def test_floating_point_reflectance_is_calibrated_too(write_json_product):
    scene = open_scene(write_json_product(reflectances(dark=8000).astype(np.float32)), L2A_CARD)
    assert (scene.encoding.scale, scene.encoding.offset) == ((SCALE,) * 3, (OFFSET,) * 3)


def test_a_products_no_data_and_mask_are_left_out(write_json_product):
    stored = reflectances(dark=8000)
    stored[:, :10] = 1
    quality = np.zeros((70, 80), np.uint16)
    quality[:, :20] = CLOUD_BIT | 256  # beyond the 8 bits of a scene classification
    scene = pickle.loads(pickle.dumps(open_scene(write_json_product(stored, quality), L2A_CARD)))
    expected = np.ones((70, 80), bool)
    expected[:10] = expected[:, :20] = False
    assert (read_all(scene)[1] == expected).all()
    assert "Clouds are left out by the quality band qa.tif." in [note.text for note in scene.notes]


def test_a_band_that_a_product_does_not_have(write_json_product):
    card = replace(L2A_CARD, bands=("B04", "B11"))
    with pytest.raises(SceneError, match="has no band B11"):
        open_scene(write_json_product(reflectances()), card)


def test_every_format_is_recognised_without_opening_an_image(write_json_product, l1c_product, tmp_path):
    product = write_json_product(reflectances())
    assert registry.recognise(product) == "LC09_x"
    assert registry.recognise(l1c_product) == l1c_product.stem
    assert registry.recognise(l1c_product / "MTD_MSIL1C.xml") == l1c_product.stem
    assert registry.root_of(l1c_product / "MTD_MSIL1C.xml") == l1c_product
    assert registry.recognise(product / "r.tif") is None
    (tmp_path / "cut_off.zip").write_bytes(b"PK")
    assert registry.recognise(tmp_path / "cut_off.zip") == "cut_off"
