"""Finished maps on disk, as `classify` wrote them: found in a folder, described, and their cells read."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from pipeline.errors import SceneError
from pipeline.maps.outputs import MOSAIC_ENDING, file_name
from pipeline.maps.record import RUN_ENDING
from pipeline.model.card import LandCoverClass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapFile:
    """A finished map: its files, and what they say of themselves before a cell is read."""

    name: str
    """The scene's name, with the folders that lead to it."""

    landcover: Path
    """The raster of classes."""

    confidence: Path
    """The raster of confidence."""

    crs: CRS | None
    """The coordinate system; None in pixel space."""

    transform: Affine
    """From (column, row) of the cells to coordinates."""

    shape: tuple[int, int]
    """(rows, columns)."""

    footprint: tuple[float, float]
    """How far the scene reaches into the map, see `LandcoverMap`."""

    classes: tuple[LandCoverClass, ...]
    """The classes with their names and colours."""

    model: tuple[str, str]
    """The model's name and digest."""


def find_maps(folder: Path) -> list[MapFile]:
    """Return the finished maps in a folder and its subfolders, sorted by name.

    A map is finished when its `run.json` is there. Maps without one are left out with a warning: their
    scenes were interrupted, or are being classified right now.

    Raises:
        SceneError: a finished map cannot be read.
    """
    finished = _find(folder, RUN_ENDING)
    maps = _find(folder, file_name("", "landcover"))
    unfinished = [
        name
        for name, path in maps.items()
        if name not in finished and not path.with_name(path.stem + MOSAIC_ENDING).exists()
    ]
    if unfinished:
        names = ", ".join(unfinished[:5]) + (", …" if len(unfinished) > 5 else "")
        log.warning("Left out, since they are not finished (there is no run.json beside them): %s.", names)
    return [_describe(name, path) for name, path in finished.items()]


def read_cells(map_file: MapFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the class and the confidence of a map's cells, both (rows, cols) uint8.

    Raises:
        SceneError: a file cannot be read, or the two do not belong together.
    """
    with _opened(map_file.landcover) as dataset:
        class_id = dataset.read(1)
    with _opened(map_file.confidence) as dataset:
        if dataset.shape != map_file.shape:
            raise SceneError(
                f"{map_file.confidence} does not belong to the map beside it: classify the scene again with "
                "`overwrite`."
            )
        return class_id, dataset.read(1)


def _find(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files with an ending, sorted, by their path in `folder` without the ending.

    Files and folders whose name starts with a dot are skipped: such folders hold unfinished files.
    """
    paths = {path.relative_to(folder): path for path in folder.rglob(f"*{ending}")}
    visible = {
        inside.as_posix().removesuffix(ending): path
        for inside, path in paths.items()
        if not any(part.startswith(".") for part in inside.parts)
    }
    return dict(sorted(visible.items()))


def _describe(name: str, record: Path) -> MapFile:
    """Return the map of a record; raises SceneError if its raster cannot be read or is no map's."""
    scene = record.name.removesuffix(RUN_ENDING)
    landcover = record.with_name(file_name(scene, "landcover"))
    with _opened(landcover) as dataset:
        tags = dataset.tags()
        try:
            columns, rows = (float(number) for number in tags["FOOTPRINT_CELLS"].split())
            colors = dataset.colormap(1)
            numbered = (entry.split("=", 1) for entry in re.split(r", (?=\d+=)", tags["CLASS_NAMES"]))
            classes = tuple(
                LandCoverClass(int(value), label, "#" + bytes(colors[int(value)][:3]).hex())
                for value, label in numbered
            )
            model = tags["model"], tags["model_digest"]
        except (KeyError, ValueError) as error:
            raise SceneError(
                f"{landcover} lacks the tags that say what its cells are: classify its scene again with "
                "`overwrite`."
            ) from error
        return MapFile(
            name=name,
            landcover=landcover,
            confidence=record.with_name(file_name(scene, "confidence")),
            crs=dataset.crs,
            transform=dataset.transform,
            shape=dataset.shape,
            footprint=(columns, rows),
            classes=classes,
            model=model,
        )


@contextmanager
def _opened(path: Path) -> Iterator[DatasetReader]:
    """Open a raster of a finished map; SceneError if it cannot be read."""
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            yield dataset
    except RasterioError as error:
        raise SceneError(
            f"{path} cannot be read, though its run.json says that the map is finished: classify its scene "
            f"again with `overwrite` ({error})."
        ) from error
