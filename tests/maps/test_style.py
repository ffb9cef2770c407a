"""The QGIS style."""

from pathlib import Path
from xml.etree import ElementTree

from pipeline.maps.style import write_style
from tests.support.maps import CLASSES

NAMES_AND_COLORS = [[entry.name, entry.color] for entry in CLASSES]


def test_the_style_has_every_class_for_raster_and_polygons(tmp_path: Path) -> None:
    path = tmp_path / "scene_landcover.qml"

    write_style(CLASSES, path)

    root = ElementTree.parse(path).getroot()
    entries = [[entry.get("label"), entry.get("color")] for entry in root.iter("paletteEntry")]
    assert entries == NAMES_AND_COLORS
    assert [entry.get("value") for entry in root.iter("category")] == ["Forest", "Pasture", "River"]
