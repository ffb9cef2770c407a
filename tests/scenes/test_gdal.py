"""How GDAL is told to open a file."""

import pytest

from pipeline.scenes.gdal import gdal_settings


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("https://host/a.tif", True),
        ("s3://bucket/a.tif", True),
        ("/vsicurl/https://host/a.tif", True),
        ("/vsizip//vsicurl/https://host/a.zip/b.tif", True),
        ("/vsizip/vsis3/bucket/a.zip/b.tif", True),
        ("zip+https://host/a.zip!b.tif", True),
        ("/data/a.tif", False),
        ("a.tif", False),
        ("C:/a.tif", False),
        ("file:///data/a.tif", False),
        ("zip:///data/a.zip!b.tif", False),
        ("/vsizip/{/data/a.zip}/b.tif", False),
    ],
)
def test_only_remote_images_are_opened_without_the_files_beside_them(path, remote):
    assert ("GDAL_DISABLE_READDIR_ON_OPEN" in gdal_settings(path).options) == remote
