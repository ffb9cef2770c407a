"""Virtual rasters (VRT): GDAL shows many maps as one, coloured and named, without copying a cell.

GDAL paints the sources in the order in which they are listed: where several have data, the last one is
seen. https://gdal.org/drivers/raster/vrt.html
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pipeline.files import write_file
from pipeline.maps.cog import category_names, rgb, self_description
from pipeline.maps.landcover_map import LandcoverMap
from pipeline.maps.rules import NO_CLASS, NO_CONFIDENCE


@dataclass(frozen=True)
class Source:
    """A raster of one uint8 band, and the cells of the VRT that it fills."""

    file: Path
    """The raster."""

    row: int
    """The row of the VRT in which its first row lies."""

    col: int
    """The column of the VRT in which its first column lies."""

    rows: int
    """Its height in cells."""

    cols: int
    """Its width in cells."""


def write_landcover_vrt(
    landcover: LandcoverMap, path: Path, sources: Sequence[Source], folder: Path, tags: Mapping[str, str]
) -> None:
    """Write the classes as a VRT of `sources`; `landcover` gives the grid and the classes.

    Paths are written relative to `folder`, where the VRT is going to lie, so that the VRT and its sources
    can be moved together. `tags` become its metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    root, band = _start(landcover, NO_CLASS, "land cover", {**tags, **self_description(landcover)})
    ElementTree.SubElement(band, "ColorInterp").text = "Palette"
    colors = {entry.id: (*rgb(entry.color), 255) for entry in landcover.classes}
    names = category_names(landcover.classes)
    table = ElementTree.SubElement(band, "ColorTable")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for value, name in enumerate(names):
        color = zip(("c1", "c2", "c3", "c4"), colors.get(value, (0, 0, 0, 0)), strict=True)
        ElementTree.SubElement(table, "Entry", {channel: str(number) for channel, number in color})
        ElementTree.SubElement(categories, "Category").text = name
    _finish(root, band, path, sources, folder, NO_CLASS)


def write_confidence_vrt(
    landcover: LandcoverMap, path: Path, sources: Sequence[Source], folder: Path, tags: Mapping[str, str]
) -> None:
    """Write the confidence in percent as a VRT of `sources`, see `write_landcover_vrt`.

    Raises:
        OutputError: the file cannot be written.
    """
    root, band = _start(landcover, NO_CONFIDENCE, "probability of the chosen class in percent", tags)
    ElementTree.SubElement(band, "ColorInterp").text = "Gray"
    _finish(root, band, path, sources, folder, NO_CONFIDENCE)


def _start(
    landcover: LandcoverMap, nodata: int, description: str, tags: Mapping[str, str]
) -> tuple[ElementTree.Element, ElementTree.Element]:
    """Return the document and its only band."""
    rows, cols = landcover.class_id.shape
    root = ElementTree.Element("VRTDataset", rasterXSize=str(cols), rasterYSize=str(rows))
    if landcover.crs is not None:
        ElementTree.SubElement(root, "SRS").text = landcover.crs.to_wkt()
    geotransform = ", ".join(repr(float(number)) for number in landcover.transform.to_gdal())
    ElementTree.SubElement(root, "GeoTransform").text = geotransform
    metadata = ElementTree.SubElement(root, "Metadata")
    for key, value in tags.items():
        ElementTree.SubElement(metadata, "MDI", key=key).text = value
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    ElementTree.SubElement(band, "Description").text = description
    ElementTree.SubElement(band, "NoDataValue").text = str(nodata)
    return root, band


def _finish(
    root: ElementTree.Element,
    band: ElementTree.Element,
    path: Path,
    sources: Sequence[Source],
    folder: Path,
    nodata: int,
) -> None:
    """Add the sources and write the file."""
    for source in sources:
        element = ElementTree.SubElement(band, "ComplexSource")
        relative = Path(os.path.relpath(source.file.resolve(), folder.resolve())).as_posix()
        ElementTree.SubElement(element, "SourceFilename", relativeToVRT="1").text = relative
        ElementTree.SubElement(element, "SourceBand").text = "1"
        width, height = str(source.cols), str(source.rows)
        # Knowing these, GDAL opens a source only when its cells are read, and not all sources at once.
        ElementTree.SubElement(
            element, "SourceProperties", RasterXSize=width, RasterYSize=height, DataType="Byte"
        )
        ElementTree.SubElement(element, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
        place = {"xOff": str(source.col), "yOff": str(source.row), "xSize": width, "ySize": height}
        ElementTree.SubElement(element, "DstRect", place)
        ElementTree.SubElement(element, "NODATA").text = str(nodata)
    ElementTree.indent(root)
    write_file(path, ElementTree.tostring(root))
