"""Rasters of a map as Cloud Optimized GeoTIFF, with the colours and names that GIS programs show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from rasterio.io import MemoryFile

from pipeline.files import write_file
from pipeline.maps.landcover_map import LandcoverMap
from pipeline.maps.rules import NO_CLASS, NO_CONFIDENCE
from pipeline.model.card import LandCoverClass

# GDAL's numbers for the type and the use of a column of a raster attribute table (gdal.h: GDALRATFieldType,
# GDALRATFieldUsage).
_INTEGER, _STRING = 0, 2
_PIXEL_COUNT, _NAME, _MIN_MAX, _RED, _GREEN, _BLUE = 1, 2, 5, 6, 7, 8


def write_landcover(landcover: LandcoverMap, path: Path, tags: Mapping[str, str] | None = None) -> None:
    """Write the classes: uint8, 0 = no data, with a colour table and overviews by mode.

    `tags` become metadata of the file (the model's name and digest).

    Raises:
        OutputError: the file cannot be written.
    """
    data = _encode(
        landcover,
        landcover.class_id[np.newaxis],
        nodata=NO_CLASS,
        descriptions=("land cover",),
        tags={**(tags or {}), **self_description(landcover)},
        colormap={NO_CLASS: (0, 0, 0, 0)}
        | {entry.id: (*rgb(entry.color), 255) for entry in landcover.classes},
        overview_resampling="MODE",
    )
    write_file(path, data)


def write_names(landcover: LandcoverMap, path: Path) -> None:
    """Write the names, colours and counts of the classes.

    QGIS, ArcGIS and GDAL look for them in the raster's `.aux.xml`, which is what `path` should be.

    Raises:
        OutputError: the file cannot be written.
    """
    write_file(path, _attribute_table(landcover))


def write_confidence(landcover: LandcoverMap, path: Path, tags: Mapping[str, str] | None = None) -> None:
    """Write the probability of the chosen class in percent: uint8, 255 = no data, overviews by averaging.

    Raises:
        OutputError: the file cannot be written.
    """
    data = _encode(
        landcover,
        landcover.confidence[np.newaxis],
        nodata=NO_CONFIDENCE,
        descriptions=("probability of the chosen class in percent",),
        tags=tags or {},
        overview_resampling="AVERAGE",
    )
    write_file(path, data)


def write_probabilities(landcover: LandcoverMap, path: Path, tags: Mapping[str, str] | None = None) -> None:
    """Write one band for each class, named, with its probability 0-1: float32, NaN = no data.

    Raises:
        OutputError: the file cannot be written.
        ValueError: the map was built without `keep_probabilities`.
    """
    if landcover.probabilities is None:
        raise ValueError("the map holds no probabilities: build it with keep_probabilities=True")
    data = _encode(
        landcover,
        landcover.probabilities,
        nodata=np.nan,
        descriptions=tuple(entry.name for entry in landcover.classes),
        tags=tags or {},
        overview_resampling="AVERAGE",
        predictor="FLOATING_POINT",
        interleave="BAND",
    )
    write_file(path, data)


def self_description(landcover: LandcoverMap) -> dict[str, str]:
    """Return the tags with which a map's file can be read as a map again.

    `CLASS_NAMES`, and `FOOTPRINT_CELLS`: see `LandcoverMap.footprint`.
    """
    columns, rows = landcover.footprint
    return {
        "CLASS_NAMES": ", ".join(f"{entry.id}={entry.name}" for entry in landcover.classes),
        "FOOTPRINT_CELLS": f"{float(columns)!r} {float(rows)!r}",
    }


def category_names(classes: Sequence[LandCoverClass]) -> list[str]:
    """Return the names of the values 0, 1, 2 …, empty for ids that are not used."""
    names = {NO_CLASS: "no data"} | {entry.id: entry.name for entry in classes}
    return [names.get(value, "") for value in range(max(names) + 1)]


def rgb(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue (0-255) of a colour written `#rrggbb`."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def _encode(
    landcover: LandcoverMap,
    bands: np.ndarray,
    *,
    nodata: float,
    descriptions: tuple[str, ...],
    tags: Mapping[str, str],
    colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
    **creation_options: Any,
) -> bytes:
    """Return `bands` (B, rows, cols) as the bytes of a COG on the map's grid."""
    with MemoryFile(ext=".tif") as memory:
        with memory.open(
            driver="COG",
            count=bands.shape[0],
            height=bands.shape[1],
            width=bands.shape[2],
            dtype=bands.dtype,
            crs=landcover.crs,
            transform=landcover.transform,
            nodata=nodata,
            compress="DEFLATE",
            **creation_options,
        ) as dataset:
            dataset.write(bands)
            dataset.descriptions = descriptions
            dataset.update_tags(**tags)
            if colormap is not None:
                dataset.write_colormap(1, colormap)
        return memory.read()


def _attribute_table(landcover: LandcoverMap) -> bytes:
    """Return category names and a raster attribute table as GDAL's persistent auxiliary metadata.

    rasterio writes neither, so this is the XML that GDAL itself would write:
    https://gdal.org/user/raster_data_model.html#raster-attribute-table.
    """
    counts = np.bincount(landcover.class_id.ravel(), minlength=256)
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in category_names(landcover.classes):
        ElementTree.SubElement(categories, "Category").text = name
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    columns = [
        ("Value", _INTEGER, _MIN_MAX),
        ("Count", _INTEGER, _PIXEL_COUNT),
        ("Class", _STRING, _NAME),
        ("Red", _INTEGER, _RED),
        ("Green", _INTEGER, _GREEN),
        ("Blue", _INTEGER, _BLUE),
    ]
    for index, (name, kind, usage) in enumerate(columns):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        ElementTree.SubElement(column, "Name").text = name
        ElementTree.SubElement(column, "Type").text = str(kind)
        ElementTree.SubElement(column, "Usage").text = str(usage)
    for index, entry in enumerate(landcover.classes):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for field in (entry.id, counts[entry.id], entry.name, *rgb(entry.color)):
            ElementTree.SubElement(row, "F").text = str(field)
    ElementTree.indent(root)
    return ElementTree.tostring(root)
