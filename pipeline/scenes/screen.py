"""A virtual copy of a raster with an alpha band that marks invalid pixels, to be resampled.

GDAL's warper keeps invalid pixels out of their neighbours if one value marks them, or a mask. Where there are
several reasons for a pixel to be invalid, this makes a mask of them all. It is a VRT of GDAL's own pixel
functions and look-up tables, so that GDAL computes it while it reads, window by window:
https://gdal.org/drivers/raster/vrt.html
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite, isnan
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import DatasetReader, MemoryFile

from pipeline.scenes.stored_values import Limits

_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64"}
"""GDAL's names of the types whose names are not numpy's with a capital."""


@dataclass(frozen=True)
class Reasons:
    """Why pixels of a file are invalid."""

    nodata: tuple[float | None, ...]
    """The value of invalid pixels in each of the bands, None where it has none."""

    limits: tuple[Limits, ...]
    """What each of the bands may hold; empty if anything."""

    zero: bool
    """Whether pixels that are 0 in every band are invalid."""

    alpha: int | None
    """A band that is 0 in invalid pixels."""

    masked: tuple[int, ...]
    """The bands whose own masks tell invalid pixels."""


def add_screen(
    dataset: DatasetReader, indexes: Sequence[int], reasons: Reasons, stack: ExitStack
) -> DatasetReader:
    """Return a virtual copy of some bands of a raster with alpha as the last one, open as long as `stack`."""
    source = stack.enter_context(MemoryFile(ext=".vrt"))  # GDAL knows no address that only rasterio does
    rasterio.shutil.copy(dataset, source.name, driver="VRT")
    terms = [
        (source.name, str(index), table)
        for index, tables in zip(indexes, _tables(dataset, indexes, reasons), strict=True)
        for table in tables
    ]
    terms += [(source.name, f"mask,{index}", "0:0,1:1") for index in reasons.masked]
    if reasons.alpha is not None:
        terms.append((source.name, str(reasons.alpha), "0:0,1:1"))
    if reasons.zero:
        not_zero = [(source.name, str(index), _except(0.0, dataset, index)) for index in indexes]
        any_band = _virtual(dataset, [_derived("1", "sum", not_zero)])
        terms.append((stack.enter_context(MemoryFile(any_band, ext=".vrt")).name, "1", "0:0,1:1"))
    name, band, table = terms[-1]
    terms[-1] = name, band, table.replace(":1", ":255")  # so that the product of all is 0 or 255
    copies = [_copy(i, source.name, dataset, index) for i, index in enumerate(indexes, start=1)]
    alpha = _derived(str(len(copies) + 1), "mul", terms)
    ElementTree.SubElement(alpha, "ColorInterp").text = "Alpha"
    screened = stack.enter_context(MemoryFile(_virtual(dataset, [*copies, alpha]), ext=".vrt"))
    return stack.enter_context(rasterio.open(screened.name))


def _tables(dataset: DatasetReader, indexes: Sequence[int], reasons: Reasons) -> list[list[str]]:
    """Return the look-up tables of each band, from a stored value to 1 if it is valid, else 0."""
    tables: list[list[str]] = [[] for _ in indexes]
    for of_band, index, value in zip(tables, indexes, reasons.nodata, strict=True):
        if value is not None and not isnan(value):
            of_band.append(_except(value, dataset, index))
    for of_band, index, (low, high) in zip(tables, indexes, reasons.limits, strict=bool(reasons.limits)):
        steps = [] if not isfinite(low) else [f"{_next(low, -1, dataset, index)!r}:0"]
        steps += [f"{value!r}:1" for value in (low, high) if isfinite(value)]
        steps += [] if not isfinite(high) else [f"{_next(high, 1, dataset, index)!r}:0"]
        if steps:
            of_band.append(",".join(steps))
    return tables


def _except(value: float, dataset: DatasetReader, index: int) -> str:
    """Return the table of a band that gives 0 for one value and 1 for all others."""
    below, above = (_next(value, towards, dataset, index) for towards in (-1, 1))
    return f"{below!r}:1,{float(value)!r}:0,{above!r}:1"


def _next(value: float, towards: int, dataset: DatasetReader, index: int) -> float:
    """Return the number beside one that a band holds, down (-1) or up (1)."""
    dtype = np.dtype(dataset.dtypes[index - 1])
    if not np.issubdtype(dtype, np.floating):
        return float(value + towards)
    with np.errstate(over="ignore"):
        beside = float(np.nextafter(dtype.type(value), dtype.type(towards * np.inf)))
    return beside if isfinite(beside) else value + towards * abs(value) * 1e-6


def _virtual(dataset: DatasetReader, bands: Sequence[ElementTree.Element]) -> bytes:
    """Return a VRT of bands that lie where a raster does."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(dataset.width), rasterYSize=str(dataset.height))
    if dataset.crs:
        ElementTree.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = dataset.crs.to_wkt()
    if not dataset.transform.is_identity:
        transform = ", ".join(map(repr, dataset.transform.to_gdal()))
        ElementTree.SubElement(root, "GeoTransform").text = transform
    root.extend(bands)
    return ElementTree.tostring(root)


def _copy(number: int, path: str, dataset: DatasetReader, index: int) -> ElementTree.Element:
    """Return a band of a VRT that is a raster's band `index`."""
    name = dataset.dtypes[index - 1]
    band = ElementTree.Element(
        "VRTRasterBand",
        dataType=_GDAL_TYPES.get(name, name.capitalize().replace("Ui", "UI")),
        band=str(number),
    )
    _source(band, "SimpleSource", path, str(index))
    return band


def _derived(number: str, function: str, terms: Sequence[tuple[str, str, str]]) -> ElementTree.Element:
    """Return a band of a VRT that GDAL computes from bands (path, band, look-up table)."""
    band = ElementTree.Element("VRTRasterBand", dataType="Byte", band=number, subClass="VRTDerivedRasterBand")
    ElementTree.SubElement(band, "PixelFunctionType").text = function
    ElementTree.SubElement(band, "SourceTransferType").text = "Float64"
    for path, index, table in terms:
        ElementTree.SubElement(_source(band, "ComplexSource", path, index), "LUT").text = table
    return band


def _source(band: ElementTree.Element, kind: str, path: str, index: str) -> ElementTree.Element:
    source = ElementTree.SubElement(band, kind)
    ElementTree.SubElement(source, "SourceFilename").text = path
    ElementTree.SubElement(source, "SourceBand").text = index
    return source
