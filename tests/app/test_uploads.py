"""Uploads: limits, and files that are not what they claim to be."""

import io
import zipfile

import pytest
import rasterio

from tests.support.pictures import picture

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from pipeline.app.uploads import safe_name


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_above_the_limit_is_refused_and_not_kept(browser, announced):
    key = browser.add_scene()
    chunks = [bytes(2**20)] * 12
    content = b"".join(chunks) if announced else iter(chunks)
    answer = browser.request("PUT", f"/api/scenes/{key}/files/a.tif", 413, content=content)
    assert answer["error"].startswith("a.tif is larger than the 8 MiB")
    assert answer["error"].endswith("start the app with a larger --max-upload.")
    assert "upload one" in browser.describe(key, 422)["error"]
    browser.request("PUT", f"/api/scenes/{key}/files/a.tif", 422, content=b"the name is free again")


def vrt(source: str) -> bytes:
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


def safe_with(image: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("S2A_MSIL1C_X.SAFE/GRANULE/L1C/IMG_DATA/T33_B02.jp2", image)
    return memory.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"II*\0 and then nothing", "cannot be opened"),
        ("a.tif", vrt("/etc/passwd"), "neither a GeoTIFF"),
        ("a.tif", b"", "neither a GeoTIFF"),
        ("a.png", picture(), "belong under Image"),
        ("a.zip", b"PK\3\4 and then nothing", "damaged zip"),
        ("a.zip", safe_with(vrt("/etc/passwd")), "not a JPEG 2000"),
    ],
)
def test_a_file_that_cannot_be_part_of_a_scene_is_refused_and_removed(browser, name, content, message):
    key = browser.add_scene()
    answer = browser.request("PUT", f"/api/scenes/{key}/files/{name}", 422, content=content)
    assert message in answer["error"]
    assert "upload one" in browser.describe(key, 422)["error"]


def test_a_header_that_declares_too_many_pixels_is_refused(browser, tmp_path):
    path = tmp_path / "huge.tif"
    profile = {"width": 50_000, "height": 50_000, "count": 3, "dtype": "uint16", "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **profile):
        pass
    key = browser.add_scene()
    answer = browser.request("PUT", f"/api/scenes/{key}/files/huge.tif", 422, content=path.read_bytes())
    assert "50,000 x 50,000 pixels" in answer["error"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [("../../etc/passwd", "passwd"), ("C:\\a\\b.tif", "b.tif"), ("..", "unnamed"), ("a*b?.tif", "a_b_.tif")],
)
def test_a_name_cannot_lead_into_another_folder(name, safe):
    assert safe_name(name) == safe
