"""Polygons: the connected regions of one class, traced and written in any of four formats."""

import io
import threading
import warnings
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from math import inf, isfinite
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from rasterio.crs import CRS
from rasterio.features import shapes
from scipy import ndimage

from pipeline.errors import OutputError
from pipeline.files import write_file
from pipeline.maps.areas import cell_hectares, metres_per_unit
from pipeline.maps.landcover_map import LandcoverMap

_DRIVERS = {"geojson": "GeoJSON", "gpkg": "GPKG", "fgb": "FlatGeobuf"}
"""GDAL's names of the formats that it writes; GeoParquet is written by geopandas."""

_GEOJSON_SEGMENT_METRES = 1000.0
"""A straight line of a map projection is bent in degrees: over a distance L by about tan(latitude) L^2 / 8R
with the Earth's radius R; at 45 degrees 240 m for the side of a Sentinel-2 scene, 2 cm for a kilometre."""

_DATE_OPTION, _DATE = "OGR_CURRENT_DATE", "2000-01-01T00:00:00.000Z"
"""GDAL's option for the date that a GeoPackage says it was last changed, and the one that all of ours have:
two runs give the same bytes. https://gdal.org/drivers/vector/gpkg.html"""

_date_lock = threading.Lock()


def polygons_possible(file_format: str, crs: CRS | None) -> bool:
    """Tell whether a map in `crs` can be written in a format: GeoJSON is in WGS 84 and so needs a CRS."""
    return file_format != "geojson" or crs is not None


def landcover_polygons(landcover: LandcoverMap, longest: float = inf) -> geopandas.GeoDataFrame:
    """Return one polygon for each 4-connected region of one class, cut to the scene's footprint.

    Columns: `class_id` (int32), `class_name`, `area_ha` (on the ground, to the square metre), `confidence`
    (mean of the region's cells in percent, to 0.1), `geometry` (valid, in the map's CRS). Cells without data
    are in no polygon. In a mosaic, where scenes end within cells, outlines go along whole cells, while areas
    are of the ground that the scenes show.

    Neighbours share every point of their common outline, and none lies further from the next than `longest`
    (in units of the map's coordinates, a cell at least): so they stay neighbours in any projection.
    """
    labels, class_id = _label_regions(landcover)
    geometry, label = _trace(labels, landcover, longest)
    flat = labels.ravel()
    count = len(class_id)
    cells = np.bincount(flat, minlength=count)
    hectares = np.bincount(flat, weights=cell_hectares(landcover).ravel(), minlength=count)
    percent = np.bincount(flat, weights=landcover.confidence.ravel(), minlength=count)
    names = np.full(256, "", dtype=object)
    for entry in landcover.classes:
        names[entry.id] = entry.name
    return geopandas.GeoDataFrame(
        {
            "class_id": class_id[label].astype(np.int32),
            "class_name": pd.array(names[class_id[label]], dtype="string"),
            "area_ha": hectares[label].round(4),
            "confidence": (percent[label] / cells[label]).round(1),
        },
        geometry=geometry,
        crs=landcover.crs,
    )


def write_polygons(landcover: LandcoverMap, path: Path, file_format: str) -> None:
    """Write the map's regions as polygons, see `landcover_polygons` for the fields.

    `geojson` follows RFC 7946: WGS 84, right-hand rule, 7 decimals, cut at the antimeridian. `gpkg`, `fgb`
    and `parquet` (GeoParquet) stay in the map's CRS. A map without data gives a file without features.
    The same map always gives the same bytes.

    Raises:
        OutputError: the file cannot be written, or it is GeoJSON and the map has no CRS.
    """
    if not polygons_possible(file_format, landcover.crs):
        raise OutputError(
            f"{path} cannot be written, since GeoJSON is in WGS 84 and the scene has no coordinate reference "
            "system: choose `polygons` gpkg or supply one with `assume_crs`."
        )
    longest = _GEOJSON_SEGMENT_METRES / metres_per_unit(landcover.crs) if file_format == "geojson" else inf
    polygons = landcover_polygons(landcover, longest)
    memory = io.BytesIO()
    if file_format == "parquet":
        polygons.to_parquet(memory, index=False)
    else:
        _encode(polygons, memory, file_format, layer=path.stem)
    write_file(path, memory.getbuffer())


def _encode(polygons: geopandas.GeoDataFrame, memory: io.BytesIO, file_format: str, layer: str) -> None:
    """Write polygons to `memory` with GDAL."""
    options = {"RFC7946": "YES"} if file_format == "geojson" else {}
    with warnings.catch_warnings(), _fixed_date() if file_format == "gpkg" else nullcontext():
        # A map in pixel space has no CRS, which is reported elsewhere.
        warnings.filterwarnings("ignore", "'crs' was not provided")
        polygons.to_file(
            memory,
            driver=_DRIVERS[file_format],
            layer=layer,
            engine="pyogrio",
            index=False,
            use_arrow=True,
            geometry_type="Polygon",
            **options,
        )


@contextmanager
def _fixed_date() -> Iterator[None]:
    """Have GDAL write `_DATE` instead of today's date, unless the user chose another one.

    The option holds for the whole process, hence the lock.
    """
    with _date_lock:
        if pyogrio.get_gdal_config_option(_DATE_OPTION) is not None:
            yield
            return
        pyogrio.set_gdal_config_options({_DATE_OPTION: _DATE})
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options({_DATE_OPTION: None})


def _label_regions(landcover: LandcoverMap) -> tuple[np.ndarray, np.ndarray]:
    """Number the regions; returns labels (rows, cols) int32, 0 = no data, and the class id of each label."""
    labels = np.zeros(landcover.class_id.shape, dtype=np.int32)
    class_id = [np.zeros(1, dtype=np.uint8)]
    last = 0
    for value in np.unique(landcover.class_id[landcover.class_id > 0]):
        of_class, count = ndimage.label(landcover.class_id == value)
        np.add(of_class, last, out=labels, where=of_class > 0)
        class_id.append(np.full(count, value, dtype=np.uint8))
        last += count
    return labels, np.concatenate(class_id)


def _trace(labels: np.ndarray, landcover: LandcoverMap, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the outline of each region in the map's coordinates, and its label.

    The loop goes over regions and rings, never over cells; the points of all rings lie in one flat array.
    """
    points, ring_ends, polygon_ends, label = array("d"), array("q", [0]), array("q", [0]), array("q")
    for outline, value in shapes(labels, mask=labels > 0, connectivity=4):
        for ring in outline["coordinates"]:
            points.extend(chain.from_iterable(ring))
            ring_ends.append(len(points) // 2)
        polygon_ends.append(len(ring_ends) - 1)
        label.append(int(value))
    corners, ends = np.asarray(points).reshape(-1, 2), np.asarray(ring_ends)
    if isfinite(longest):
        step = max(1, int(longest / abs(landcover.transform.a)))
        corners, ends = _with_shared_points(corners.astype(np.int64), ends, labels.shape, step)
    # Corners are whole cells and the footprint ends within the last one, so the minimum clips exactly.
    corners = np.minimum(corners, landcover.footprint)
    transform = np.asarray(landcover.transform).reshape(3, 3)
    geometry = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        corners @ transform[:2, :2].T + transform[:2, 2],
        (ends, np.asarray(polygon_ends)),
    )
    return geometry, np.asarray(label)


def _with_shared_points(
    points: np.ndarray, ring_ends: np.ndarray, shape: tuple[int, int], step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add to rings the corners of others that lie on them, and a point in every `step`-th row and column.

    `points` (n, 2) are (column, row) of the rings' corners, each ring closed, and `ring_ends` where the
    rings begin and, last, end.
    """
    is_corner = np.zeros((shape[0] + 1, shape[1] + 1), bool)
    is_corner[points[:, 1], points[:, 0]] = True
    ahead = np.diff(points, axis=0, append=points[-1:])
    ahead[ring_ends[1:] - 1] = 0  # from the end of a ring to the next ring there is no line
    length = np.abs(ahead).sum(axis=1).clip(1)
    first = np.concatenate([[0], length.cumsum()])
    along = np.arange(first[-1]) - first[:-1].repeat(length)
    walked = points.repeat(length, axis=0) + along[:, None] * np.sign(ahead).repeat(length, axis=0)
    on_line = (np.abs(ahead) > 0).repeat(length, axis=0) & (walked % step == 0)
    kept = (along == 0) | is_corner[walked[:, 1], walked[:, 0]] | on_line.any(axis=1)
    before = np.concatenate([[0], kept.cumsum()])
    return walked[kept], before[first[ring_ends]]
