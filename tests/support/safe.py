"""Tiny Sentinel-2 products in SAFE format."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin


def metadata_xml(level: str, baseline: str = "04.00", offset: int | None = -1000) -> str:
    """Return the metadata of an l1c or l2a product; the offset of band i is `offset` - i."""
    root, kind, prefix = ("Level-1C", "RADIO", "") if level == "l1c" else ("Level-2A", "BOA", "BOA_")
    bands = () if offset is None else range(13)
    offsets = "".join(f'<{kind}_ADD_OFFSET band_id="{i}">{offset - i}</{kind}_ADD_OFFSET>' for i in bands)
    return (
        f'<?xml version="1.0"?><n1:{root}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/x">'
        f"<PROCESSING_LEVEL>{root}</PROCESSING_LEVEL><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        "<PRODUCT_START_TIME>2023-01-05T10:14:11.024Z</PRODUCT_START_TIME>"
        f"<{prefix}QUANTIFICATION_VALUE>10000</{prefix}QUANTIFICATION_VALUE>{offsets}</n1:{root}_User_Product>"
    )


def write_l1c_product(folder: Path) -> Path:
    """Write a tiny L1C product, bands at 10, 20 and 60 m, the left third no data; return its folder."""
    product = folder / "S2A_MSIL1C_20230105T101411_N0509_R022_T33UVP_20230105T120000.SAFE"
    images = product / "GRANULE/L1C_T33UVP_A1_20230105T101411/IMG_DATA"
    images.mkdir(parents=True)
    (product / "MTD_MSIL1C.xml").write_text(metadata_xml("l1c", "05.09"))
    for band, metres in {"B02": 10, "B03": 10, "B04": 10, "B05": 20, "B09": 60}.items():
        size = 1440 // metres
        pixels = np.full((1, size, size), 1500 + int(band[1:]), np.uint16)
        pixels[:, :, : size // 3] = 0
        with rasterio.open(
            images / f"T33UVP_20230105T101411_{band}.jp2",
            "w",
            driver="JP2OpenJPEG",
            width=size,
            height=size,
            count=1,
            dtype="uint16",
            crs="EPSG:32633",
            transform=from_origin(399_960, 5_300_040, metres, metres),
            QUALITY=100,
            REVERSIBLE="YES",
        ) as file:
            file.write(pixels)
    return product
