"""The mosaic: many maps joined into one, with the same outputs as a single scene's map.

Nothing is reprojected, since classes cannot be interpolated: the maps are in one coordinate system
(`mosaic_choice`) and are moved onto one grid (`mosaic_grid`).

Where maps overlap, each cell shows the class of the map that is surer of it (`rules.surer`). A VRT copies
nothing, so there the map with the highest mean confidence lies on top.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.files import make_folder, publish, staging_folder, write_file
from pipeline.maps.areas import ClassArea, class_areas, metres_per_unit
from pipeline.maps.finished import MapFile, find_maps, read_cells
from pipeline.maps.landcover_map import LandcoverMap
from pipeline.maps.mosaic_choice import choose_maps, count_of_maps, map_crs_name
from pipeline.maps.mosaic_coverage import covered_ground
from pipeline.maps.mosaic_files import MosaicFiles
from pipeline.maps.mosaic_grid import MosaicGrid, Placed, common_grid
from pipeline.maps.outputs import OutputContext, write_outputs
from pipeline.maps.rules import NO_CLASS, NO_CONFIDENCE, surer
from pipeline.notes import Note, info, log_note, warning
from pipeline.options import MosaicOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MosaicResult:
    """A mosaic that was written."""

    files: dict[str, Path]
    """Its files by kind."""

    maps: int
    """How many maps are in it."""

    shape: tuple[int, int]
    """Its cells: (rows, columns)."""

    areas: tuple[ClassArea, ...]
    """The area of each class."""

    seconds: float
    """How long it took."""


def join_maps(
    folder: Path,
    output: Path,
    options: MosaicOptions = MosaicOptions(),
    progress: Callable[[int, int], None] | None = None,
) -> MosaicResult:
    """Join the finished maps in `folder` and below into `output` (`.tif` or `.vrt`) and the files beside it.

    For `map.tif` these are `map_confidence.tif`, `map.geojson`, `map.qml`, `map_areas.csv` and, last,
    `map_mosaic.json`, which says what was joined. `progress` is called with the number of maps done since
    the last call and the number of all. An earlier mosaic of that name is replaced.

    Raises:
        UsageError: there are no maps, or they cannot be joined.
        SceneError: a map is damaged.
        OutputError: a file cannot be written, or one that is not an earlier mosaic's is in the way.
    """
    started = time.perf_counter()
    files = MosaicFiles.of(output, options)
    maps = choose_maps(find_maps(folder), folder, options.crs)
    grid = common_grid(maps)
    grid.check_size()
    make_folder(output.parent)
    interrupted = files.interrupted()
    if not (options.overwrite or interrupted):
        files.check_nothing_in_the_way()

    placed: Placed = list(zip(maps, grid.places, strict=True))
    if files.virtual:
        placed = _surest_last(placed)
    mosaic, contradicted = _join(placed, grid, on_top=files.virtual, progress=progress)
    notes = [_alignment(maps, grid)]
    if contradicted:
        notes.append(_contradiction(contradicted, files.names()["confidence"]))
    for note in notes:
        log_note(log, output.name, note)
    with staging_folder(output.parent, output.stem) as staging:
        context = OutputContext(mosaic, output.stem, _tags(maps))
        written = write_outputs(files.written_from(placed), context, staging)
        names = {kind: file.name for kind, file in written.items()} | {"record": files.record.name}
        result = MosaicResult(
            files={kind: output.with_name(name) for kind, name in names.items()},
            maps=len(maps),
            shape=grid.shape,
            areas=class_areas(mosaic),
            seconds=time.perf_counter() - started,
        )
        _write_record(staging / files.record.name, folder, placed, notes, result)
        publish(staging, output.parent, last=files.record.name, stale=files.possible() - set(names.values()))
    for leftover in interrupted:
        shutil.rmtree(leftover, ignore_errors=True)
    return result


def _surest_last(placed: Placed) -> Placed:
    """Return the maps by mean confidence: the surest comes last, on top; of equals the first by name."""
    order = sorted(range(len(placed)), key=lambda i: (_mean_confidence(placed[i][0]), -i))
    return [placed[i] for i in order]


def _mean_confidence(map_file: MapFile) -> float:
    """Return the mean confidence of the cells that have a class, 0 if there is none."""
    class_id, confidence = read_cells(map_file)
    return float(confidence[class_id != NO_CLASS].mean()) if class_id.any() else 0.0


def _join(
    placed: Placed, grid: MosaicGrid, *, on_top: bool, progress: Callable[[int, int], None] | None
) -> tuple[LandcoverMap, int]:
    """Put the maps together, one after the other.

    A map replaces the cells of earlier maps where it is surer or, with `on_top`, wherever it has a class. No
    data never replaces anything.

    GDAL paints the classes and the confidences of a VRT separately. Where the map on top is too unsure to
    have a class, it shows that map's confidence over another map's class: the number of such cells is
    returned beside the map; without `on_top` there are none.
    """
    class_id = np.full(grid.shape, NO_CLASS, np.uint8)
    confidence = np.full(grid.shape, NO_CONFIDENCE, np.uint8)
    painted = confidence.copy() if on_top else confidence
    for map_file, place in placed:
        new_class_id, new_confidence = read_cells(map_file)
        rows, cols = map_file.shape
        window = np.s_[place.row : place.row + rows, place.col : place.col + cols]
        better = surer(new_class_id, new_confidence, class_id[window], confidence[window])
        if on_top:
            better |= new_class_id != NO_CLASS
            np.copyto(painted[window], new_confidence, where=new_confidence != NO_CONFIDENCE)
        np.copyto(class_id[window], new_class_id, where=better)
        np.copyto(confidence[window], new_confidence, where=better)
        if progress is not None:
            progress(1, len(placed))
    first = placed[0][0]
    joined = LandcoverMap(
        class_id,
        confidence,
        None,
        first.classes,
        first.crs,
        grid.transform,
        grid.footprint,
        covered_ground(placed, grid.shape),
    )
    return joined, int(np.count_nonzero(painted != confidence))


def _alignment(maps: Sequence[MapFile], grid: MosaicGrid) -> Note:
    """Return a note that says how many maps were moved onto the grid, and how far."""
    count = count_of_maps(len(maps))
    moved = [place.moved for place in grid.places if any(place.moved)]
    if not moved:
        return info("mosaic-aligned", None, f"{count} on one grid, joined without moving a cell.")
    cell = maps[0].transform.a * metres_per_unit(maps[0].crs)
    furthest = max(abs(part) for both in moved for part in both) * cell
    return warning(
        "mosaic-moved",
        "stride",
        f"Moved onto the cells of the others, since they start between them: {len(moved)} of {count}, by "
        f"up to {furthest:.0f} m in x and y (half a cell at most); classified with a smaller `stride`, "
        "maps move less.",
    )


def _contradiction(cells: int, confidence: str) -> Note:
    """Return a note that the file `confidence` of a VRT does not agree with the classes in some cells."""
    return warning(
        "mosaic-unsure-on-top",
        "min_confidence",
        f"In {cells} cell{'' if cells == 1 else 's'} {confidence} shows how unsure the map on top is, "
        "which has no class there (`min_confidence`), over the class of another: a .tif mosaic shows that "
        "one's.",
    )


def _tags(maps: Sequence[MapFile]) -> dict[str, str]:
    name, digest = maps[0].model
    return {"model": name, "model_digest": digest}


def _write_record(
    path: Path, folder: Path, placed: Placed, notes: Sequence[Note], result: MosaicResult
) -> None:
    """Write what a reader of the mosaic may want to know; `moved` is in cells to the right and down."""
    first = placed[0][0]
    rows, columns = result.shape
    record = {
        "model": {"name": first.model[0], "digest": first.model[1]},
        "folder": str(folder),
        "crs": map_crs_name(first),
        "cells": {"rows": rows, "columns": columns},
        "maps": [{"name": m.name, **asdict(place)} for m, place in sorted(placed, key=lambda p: p[0].name)],
        "notes": [asdict(note) for note in notes],
        "files": {kind: file.name for kind, file in result.files.items()},
        "areas": [asdict(area) for area in result.areas],
        "seconds": round(result.seconds, 3),
    }
    write_file(path, (json.dumps(record, indent=2) + "\n").encode())
