"""The maps that lie in a folder, as `classify` left them: which are finished, and what is in them."""

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

from pipeline.classify import OUTPUTS
from pipeline.errors import SceneError
from pipeline.maps.record import record_path
from pipeline.model.card import LandCoverClass

log = logging.getLogger(__name__)

RUN_ENDING = record_path(Path(), "").name
MOSAIC_ENDING = "_mosaic.json"  # of the record beside a mosaic, which is no scene's map


@dataclass(frozen=True)
class MapFile:
    """A finished map: its files, and what they say of themselves before a cell is read.

    `name` is the scene's with the folders that lead to it; `shape` is (rows, cols); `footprint` as in
    `LandcoverMap`; `model` is the model's name and digest.
    """

    name: str
    landcover: Path
    confidence: Path
    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]
    footprint: tuple[float, float]
    classes: tuple[LandCoverClass, ...]
    model: tuple[str, str]


def find_maps(folder: Path) -> list[MapFile]:
    """Return the finished maps in a folder and its subfolders, in the order of their names.

    It is its `run.json` that says of a map that it is finished. Maps without one are left out with a
    warning: their scenes were interrupted, or are being classified right now.

    Raises:
        SceneError: a finished map cannot be read.
    """
    finished = _find(folder, RUN_ENDING)
    maps = _find(folder, OUTPUTS["landcover"])
    unfinished = [
        name
        for name, path in maps.items()
        if name not in finished and not path.with_name(path.stem + MOSAIC_ENDING).exists()
    ]
    if unfinished:
        names = ", ".join(unfinished[:5]) + (", …" if len(unfinished) > 5 else "")
        log.warning("Left out, since no run.json beside them says that they are finished: %s.", names)
    return [_describe(name, path) for name, path in finished.items()]


def read_cells(map_file: MapFile) -> tuple[np.ndarray, np.ndarray]:
    """Return class and confidence of a map's cells."""
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
    """Return the files with an ending by their path in `folder` without it, sorted; hidden ones are not ours.

    Folders that start with a dot hold what is being written.
    """
    paths = {path.relative_to(folder): path for path in folder.rglob(f"*{ending}")}
    visible = {
        inside.as_posix().removesuffix(ending): path
        for inside, path in paths.items()
        if not any(part.startswith(".") for part in inside.parts)
    }
    return dict(sorted(visible.items()))


def _describe(name: str, record: Path) -> MapFile:
    scene = record.name.removesuffix(RUN_ENDING)
    landcover = record.with_name(scene + OUTPUTS["landcover"])
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
                f"{landcover} does not say what its cells are, as a map does: classify its scene again "
                "with `overwrite`."
            ) from error
        return MapFile(
            name=name,
            landcover=landcover,
            confidence=record.with_name(scene + OUTPUTS["confidence"]),
            crs=dataset.crs,
            transform=dataset.transform,
            shape=dataset.shape,
            footprint=(columns, rows),
            classes=classes,
            model=model,
        )


@contextmanager
def _opened(path: Path) -> Iterator[DatasetReader]:
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            yield dataset
    except RasterioError as error:
        raise SceneError(
            f"{path} cannot be read, though its run.json says that the map is finished: classify its scene "
            f"again with `overwrite` ({error})."
        ) from error
