"""The QGIS style, one for both the raster and the polygons of a map.

QGIS loads `NAME.qml` by itself when `NAME.tif`, `NAME.geojson`, `NAME.gpkg` or `NAME.fgb` is opened. From
the same file a raster layer reads the `pipe` and a vector layer `renderer-v2`; each ignores the other's.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from pipeline.files import write_file
from pipeline.maps.cog import rgb
from pipeline.model.card import LandCoverClass

_POLYGON_GEOMETRY = "2"
"""Polygons, in QgsWkbTypes: a vector layer refuses a style made for another kind of geometry."""

_QGIS_VERSION = "3.22"
"""The oldest QGIS that this was tested with; newer ones convert older styles themselves."""


def write_style(classes: Sequence[LandCoverClass], path: Path) -> None:
    """Write the classes' names and colours as a QGIS layer style.

    Raises:
        OutputError: the file cannot be written.
    """
    root = ElementTree.Element("qgis", version=_QGIS_VERSION, styleCategories="Symbology")
    _add_raster_renderer(root, classes)
    _add_polygon_renderer(root, classes)
    ElementTree.SubElement(root, "layerGeometryType").text = _POLYGON_GEOMETRY
    ElementTree.indent(root)
    doctype = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    write_file(path, doctype + ElementTree.tostring(root))


def _add_raster_renderer(root: ElementTree.Element, classes: Sequence[LandCoverClass]) -> None:
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for entry in classes:
        attributes = {"value": str(entry.id), "label": entry.name, "color": entry.color, "alpha": "255"}
        ElementTree.SubElement(palette, "paletteEntry", attributes)


def _add_polygon_renderer(root: ElementTree.Element, classes: Sequence[LandCoverClass]) -> None:
    renderer = ElementTree.SubElement(
        root, "renderer-v2", {"type": "categorizedSymbol", "attr": "class_name"}
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for index, entry in enumerate(classes):
        category = {"value": entry.name, "type": "string", "label": entry.name}
        ElementTree.SubElement(categories, "category", category, symbol=str(index), render="true")
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(index), alpha="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1"})
        options = ElementTree.SubElement(layer, "Option", type="Map")
        color = ",".join(str(channel) for channel in (*rgb(entry.color), 255))
        for name, value in {"color": color, "style": "solid", "outline_style": "no"}.items():
            ElementTree.SubElement(options, "Option", name=name, value=value, type="QString")
