"""What QGIS makes of our files, with no style loaded by hand. `make qgis-check` installs QGIS and runs this.

The maps are a real model's, of a made-up scene: its classes are read from the raster by rasterio, so that
QGIS is compared with a second reader.
"""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from pipeline.classify import classify_scene
from pipeline.maps.mosaic import join_maps
from pipeline.options import POLYGON_FORMATS, ClassifyOptions, MosaicOptions
from pipeline.scenes.synthetic import write_scene

QGIS_PYTHON = "/usr/bin/python3"  # QGIS's bindings belong to the system's Python, not to ours
QGIS_VIEW = Path(__file__).parents[1] / "support" / "qgis_view.py"

SIZE, EPSG = 640, "EPSG:32633"
WEST, NORTH = 399_960.0, 5_400_000.0
BOUNDS = (WEST, NORTH - 10 * SIZE, WEST + 10 * SIZE, NORTH)
EAST_BOUNDS = (BOUNDS[0] + 5_120, BOUNDS[1], BOUNDS[2] + 5_120, BOUNDS[3])  # 8 cells further
BOTH = (BOUNDS[0], BOUNDS[1], EAST_BOUNDS[2], BOUNDS[3])
PIXELS_A_CELL = 8


def run_qgis(*arguments: object, home: Path) -> str:
    """Run a script with QGIS's Python, away from our libraries' data; returns what it prints."""
    foreign = {"PYTHONPATH", "PYTHONHOME", "PROJ_DATA", "PROJ_LIB", "GDAL_DATA"}
    environment = {key: value for key, value in os.environ.items() if key not in foreign}
    environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "QT_QPA_PLATFORM": "offscreen"}
    command = [QGIS_PYTHON, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def qgis_formats() -> set[str] | None:
    """Return the vector formats that QGIS can read, None if it is not there."""
    script = "import qgis.core\nfrom osgeo import ogr\n"
    script += "print(*(ogr.GetDriver(i).GetName() for i in range(ogr.GetDriverCount())), sep=',')"
    try:
        return set(run_qgis("-c", script, home=Path("/nonexistent")).strip().split(","))
    except (OSError, AssertionError):
        return None


@pytest.fixture(scope="module")
def files(tmp_path_factory, light_predictor) -> dict[str, Path]:
    """Return the files of a scene's map in every format, and of the mosaics with the one beside it."""
    if qgis_formats() is None:
        pytest.skip(f"QGIS's Python (python3-qgis) is not installed for {QGIS_PYTHON}: make qgis-check")
    folder = tmp_path_factory.mktemp("qgis")
    scene, east = folder / "scene.tif", folder / "east.tif"
    write_scene(scene, SIZE, origin=(WEST, NORTH))
    write_scene(east, SIZE, seed=8, origin=(EAST_BOUNDS[0], NORTH))
    files = {}
    for kind in POLYGON_FORMATS:
        output = folder / "maps" / kind
        options = ClassifyOptions(polygons=kind, probabilities=True)
        written = classify_scene(str(scene), output, light_predictor, options).files
        files |= {f"scene's {kind}": written["polygons"]}
    files |= {
        f"scene's {kind}": written[kind] for kind in ("landcover", "confidence", "probabilities", "areas")
    }
    both = folder / "both"
    for path in (scene, east):
        classify_scene(str(path), both, light_predictor, ClassifyOptions(polygons="none"))
    for name, kind in [("a.tif", "geojson"), ("b.tif", "gpkg"), ("c.vrt", "fgb"), ("d.vrt", "parquet")]:
        written = join_maps(both, folder / name, MosaicOptions(polygons=kind)).files
        files |= {f"mosaic's {kind}": written["polygons"]}
        for raster in ("landcover", "confidence"):
            files[f"mosaic's {raster}{Path(name).suffix}"] = written[raster]
    for name in ("scene's landcover", "mosaic's landcover.vrt"):
        files[f"{name} alone"] = without_style(files[name], folder)
    return files


def without_style(raster: Path, folder: Path) -> Path:
    """Return a copy that has its own side file, but no QML."""
    copy = raster.with_name(f"alone{raster.suffix}")
    shutil.copy(raster, copy)
    names = raster.with_name(f"{raster.name}.aux.xml")
    if names.exists():
        shutil.copy(names, copy.with_name(f"{copy.name}.aux.xml"))
    return copy


# What is drawn: name of the picture -> files, the uppermost first, and the extent.
PICTURES = {
    "scene's raster": (["scene's landcover"], BOUNDS),
    "scene's raster without a style": (["scene's landcover alone"], BOUNDS),
    "scene's polygons": (["scene's geojson"], BOUNDS),
    "scene's polygons over raster": (["scene's geojson", "scene's landcover"], BOUNDS),
    "mosaic's raster": (["mosaic's landcover.tif"], BOTH),
    "mosaic's polygons over raster": (["mosaic's gpkg", "mosaic's landcover.tif"], BOTH),
    "mosaic's virtual raster": (["mosaic's landcover.vrt"], BOTH),
    "mosaic's virtual raster under polygons": (["mosaic's fgb", "mosaic's landcover.vrt"], BOTH),
}


@pytest.fixture(scope="module")
def folder(files) -> Path:
    return files["mosaic's landcover.tif"].parent


@pytest.fixture(scope="module")
def seen(files, folder) -> dict[str, dict]:
    """Return what QGIS says of each file, and draw the pictures into the folder, in one run of it."""
    pictures = [
        {
            "layers": [str(files[layer]) for layer in layers],
            "bounds": bounds,
            "crs": EPSG,
            "size": [round((bounds[2] - bounds[0]) / 640) * PIXELS_A_CELL, 10 * PIXELS_A_CELL],
            "path": str(folder / f"{name}.png"),
        }
        for name, (layers, bounds) in PICTURES.items()
    ]
    job = folder / "job.json"
    job.write_text(json.dumps({"open": [str(path) for path in files.values()], "pictures": pictures}))
    found = json.loads(run_qgis(QGIS_VIEW, job, home=folder))
    return {name: found[str(path)] for name, path in files.items()}


def open_in_qgis(seen: dict[str, dict], name: str) -> dict:
    if name.endswith("parquet") and "Parquet" not in qgis_formats():
        pytest.skip("this QGIS's GDAL is built without GeoParquet")
    assert seen[name]["valid"], name
    return seen[name]


RASTERS = ["landcover", "confidence", "probabilities"]
MOSAICS = ["landcover.tif", "confidence.tif", "landcover.vrt", "confidence.vrt"]
POLYGONS = [f"{whose}'s {kind}" for whose in ("scene", "mosaic") for kind in POLYGON_FORMATS]


@pytest.mark.parametrize(
    "name", [f"scene's {kind}" for kind in RASTERS] + [f"mosaic's {kind}" for kind in MOSAICS]
)
def test_every_raster_opens_in_its_place(seen, name):
    layer = open_in_qgis(seen, name)

    assert layer["crs"] == EPSG
    assert layer["bounds"] == list(BOUNDS if name.startswith("scene") else BOTH)


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_open_in_their_place(seen, name):
    layer = open_in_qgis(seen, name)

    assert layer["crs"] == ("EPSG:4326" if name.endswith("geojson") else EPSG)
    bounds = BOUNDS if name.startswith("scene") else BOTH
    expected = transform_bounds(EPSG, layer["crs"], *bounds) if name.endswith("geojson") else bounds
    assert layer["bounds"] == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert layer["features"] > 10
    assert {"class_id", "class_name", "area_ha", "confidence"} <= set(layer["fields"])


@pytest.mark.parametrize("name", ["scene's landcover", "mosaic's landcover.tif", "mosaic's landcover.vrt"])
def test_maps_are_coloured_and_named(seen, light, name):
    layer = open_in_qgis(seen, name)

    assert layer["renderer"] == "paletted"
    assert layer["classes"] == [[entry.id, entry.name, entry.color] for entry in light.card.classes]


@pytest.mark.parametrize("name", ["scene's landcover", "mosaic's landcover.vrt"])
def test_maps_whose_style_was_lost_are_coloured_and_named(seen, light, name):
    layer = open_in_qgis(seen, f"{name} alone")

    assert layer["renderer"] == "paletted"
    named, rest = layer["classes"][:10], layer["classes"][10:]
    assert named == [[entry.id, entry.name, entry.color] for entry in light.card.classes]
    # A GeoTIFF's palette always has 256 colours, and this QGIS lists those without a name, too.
    assert [value for value, *_ in rest] == (list(range(11, 256)) if name.startswith("scene") else [])


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_are_coloured_and_named(seen, light, name):
    layer = open_in_qgis(seen, name)

    assert layer["renderer"] == "categorizedSymbol"
    assert layer["classes"] == [[entry.name, entry.name, entry.color] for entry in light.card.classes]


def test_bands_of_probabilities_and_fields_of_areas_are_named(seen, light):
    bands = open_in_qgis(seen, "scene's probabilities")["bands"]

    assert [band.partition(": ")[2] for band in bands] == [entry.name for entry in light.card.classes]
    assert open_in_qgis(seen, "scene's areas")["fields"] == [
        "class_id",
        "class_name",
        "hectares",
        "share_percent",
    ]


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_drawn_has_each_class_in_its_place(seen, files, folder, light, name):
    layers, _ = PICTURES[name]
    raster = next(layer for layer in [*layers, "scene's landcover"] if "landcover" in layer)
    with rasterio.open(files[raster]) as source:
        class_id = source.read(1)
        assert source.transform == Affine(640, 0, WEST, 0, -640, NORTH)
    palette = np.zeros((11, 3), np.uint8)
    for entry in light.card.classes:
        palette[entry.id] = list(bytes.fromhex(entry.color[1:]))

    picture = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))

    rows, cols = class_id.shape
    cells = picture.reshape(rows, PIXELS_A_CELL, cols, PIXELS_A_CELL, 3).transpose(0, 2, 1, 3, 4)
    inside = cells[:, :, 1:-1, 1:-1]  # where polygons meet, two colours are mixed
    assert len(np.unique(class_id)) > 5
    assert (inside == palette[class_id][:, :, np.newaxis, np.newaxis]).all()
