import json
import os
import subprocess
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from outputs_maps import CLASSES, make_map

from pipeline.outputs.polygons import write_polygons
from pipeline.outputs.raster import write_landcover
from pipeline.outputs.style import write_style

SYSTEM_PYTHON = "/usr/bin/python3"  # QGIS's bindings belong to the system's Python, not to ours
NAMES_AND_COLORS = [[entry.name, entry.color] for entry in CLASSES]

# Opens each file as QGIS does when it is dropped on its window: the layers look for a style by themselves.
OPEN_IN_QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
found = {}
for path in sys.argv[1:]:
    if path.endswith(".tif"):
        layer = QgsRasterLayer(path, "map")
        entries = [[entry.label, entry.color.name()] for entry in layer.renderer().classes()]
    else:
        layer = QgsVectorLayer(path, "map")
        categories = layer.renderer().categories()
        entries = [[entry.label(), entry.symbol().color().name()] for entry in categories]
        assert {feature["class_name"] for feature in layer.getFeatures()} <= {c.value() for c in categories}
    found[path] = entries
    del layer
print(json.dumps(found))
"""


@cache
def qgis_is_there() -> bool:
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("vector", ["geojson", "gpkg", "fgb"])
def test_qgis_opens_raster_and_polygons_coloured_and_named(tmp_path: Path, vector: str) -> None:
    if not qgis_is_there():
        pytest.skip(f"QGIS's Python (python3-qgis) is not installed for {SYSTEM_PYTHON}")
    landcover = make_map([[1, 2], [3, 0]])
    raster, polygons = tmp_path / "scene_landcover.tif", tmp_path / f"scene_landcover.{vector}"
    write_landcover(landcover, raster)
    write_polygons(landcover, polygons, vector)
    write_style(CLASSES, tmp_path / "scene_landcover.qml")

    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    foreign = {"PYTHONPATH", "PYTHONHOME", "PROJ_DATA", "PROJ_LIB", "GDAL_DATA"}
    environment = {key: value for key, value in os.environ.items() if key not in foreign} | home
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", OPEN_IN_QGIS, raster, polygons],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )

    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == {str(raster): NAMES_AND_COLORS, str(polygons): NAMES_AND_COLORS}


def test_the_style_has_every_class_for_raster_and_polygons(tmp_path: Path) -> None:
    path = tmp_path / "scene_landcover.qml"

    write_style(CLASSES, path)

    root = ElementTree.parse(path).getroot()
    entries = [[entry.get("label"), entry.get("color")] for entry in root.iter("paletteEntry")]
    assert entries == NAMES_AND_COLORS
    assert [entry.get("value") for entry in root.iter("category")] == ["Forest", "Pasture", "River"]
