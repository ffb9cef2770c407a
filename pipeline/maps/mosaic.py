"""Many maps joined into one: colours, names, polygons and areas as of a single scene's map.

Maps that are joined are of one model, one cell size and one coordinate system; nothing is reprojected,
since classes cannot be interpolated. Neighbouring scenes seldom start a whole number of cells apart (two
Sentinel-2 granules lie 99,960 m or 100,020 m apart, which is 156.2 or 156.3 cells of 640 m). The mosaic's
grid is therefore the one that most of the maps are on, and every other map is moved onto it as a whole, by
half a cell at most along each axis. Maps that are on the grid keep every cell exactly.

Where maps overlap, the class of the surer one is taken, cell by cell. A VRT copies nothing, so there the
map that is surer on the whole lies on top.
"""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from pipeline.classify import SIDE_FILES
from pipeline.errors import OutputError, UsageError
from pipeline.files import leftovers, make_folder, publish, staging_folder, write_file
from pipeline.maps.areas import ClassArea, class_areas, metres_per_unit, write_areas
from pipeline.maps.cog import self_description, write_confidence, write_landcover
from pipeline.maps.finished import MOSAIC_ENDING, MapFile, find_maps, read_cells
from pipeline.maps.landcover_map import NO_CLASS, NO_CONFIDENCE, LandcoverMap
from pipeline.maps.polygons import POLYGON_SUFFIXES, write_polygons
from pipeline.maps.style import write_style
from pipeline.maps.vrt import Source, write_confidence_vrt, write_landcover_vrt
from pipeline.notes import Note, info, log_note, warning
from pipeline.options import MosaicOptions, check_polygons
from pipeline.scenes.ground import crs_name

log = logging.getLogger(__name__)

# A mosaic is put together in memory, at its peak some 30 bytes a cell: 6 GB for so many, which are a whole
# UTM zone from the equator to 84 degrees north at 200 m.
MAX_CELLS = 200_000_000

# Origins this near to a whole number of cells from each other are on the same grid: 6 cm of 640 m.
ALIGNED = 1e-4


@dataclass(frozen=True)
class Place:
    """Where a map lies in the mosaic: its upper left cell, and how far it was moved to lie on the grid.

    `moved` is in cells to the right and down, at most half of one each.
    """

    row: int
    col: int
    moved: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class MosaicGrid:
    """The cells of the mosaic, and the place of each map, in the order of the maps.

    `footprint` (columns, rows) is how far any scene reaches into the mosaic. It cuts the last column and
    row as it does in a single map; within the mosaic's outline, cells that hang over a scene count whole.
    """

    transform: Affine
    shape: tuple[int, int]
    footprint: tuple[float, float]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class MosaicResult:
    """A mosaic done: its files, how many maps are in it, its cells (rows, cols) and areas."""

    files: dict[str, Path]
    maps: int
    shape: tuple[int, int]
    areas: tuple[ClassArea, ...]
    seconds: float


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
        OutputError: a file cannot be written, or another one that is not a mosaic's is in the way.
    """
    started = time.perf_counter()
    files = _files(output, options)
    maps = _choose(find_maps(folder), folder, options.crs)
    grid = common_grid(maps)
    _check_size(grid)
    make_folder(output.parent)
    interrupted = _interrupted(output)
    if not (options.overwrite or interrupted):
        _check_nothing_in_the_way(files)
    notes = _notes(maps, grid)

    placed = list(zip(maps, grid.places, strict=True))
    if virtual := output.suffix == ".vrt":
        # The surest comes last and lies on top; of equals the one that is first by name.
        order = sorted(range(len(maps)), key=lambda i: (_mean_confidence(maps[i]), -i))
        placed = [placed[i] for i in order]
    mosaic, contradicted = _join(placed, grid, on_top=virtual, progress=progress)
    if contradicted:
        notes.append(_contradiction(contradicted, files["confidence"]))
    for note in notes:
        log_note(log, output.name, note)
    areas = class_areas(mosaic)
    with staging_folder(output.parent, output.stem) as staging:
        staged = {kind: staging / file.name for kind, file in files.items()}
        if virtual:
            _write_vrts(mosaic, placed, staged, output.parent)
        else:
            write_landcover(mosaic, staged["landcover"], _tags(maps))
            write_confidence(mosaic, staged["confidence"], _tags(maps))
        write_style(mosaic.classes, staged["style"])
        write_areas(mosaic, staged["areas"])
        if options.polygons != "none":
            write_polygons(mosaic, staged["polygons"], options.polygons)
        seconds = time.perf_counter() - started
        record = _record(folder, placed, grid, notes, files, areas, seconds)
        write_file(staged["record"], (json.dumps(record, indent=2) + "\n").encode())
        stale = _names_beside(output) - {file.name for file in files.values()}
        publish(staging, output.parent, last=files["record"].name, stale=stale)
    for leftover in interrupted:
        shutil.rmtree(leftover, ignore_errors=True)
    return MosaicResult(files, len(maps), grid.shape, areas, seconds)


def common_grid(maps: Sequence[MapFile]) -> MosaicGrid:
    """Return the grid that most of the maps are on (of equals the first map's), as large as holds all.

    The maps, at least one, have one cell size. Each goes to its nearest cell; rounding keeps the order of
    edges, so that of two scenes that touch or overlap, neither's map ends before the other's begins.
    """
    transform = maps[0].transform
    # In cells to the right of and below the first map.
    origins = np.array([~transform @ (m.transform.c, m.transform.f) for m in maps])
    phases = np.round(origins / ALIGNED) % (1 / ALIGNED)
    most_common, _ = Counter(map(tuple, phases.tolist())).most_common(1)[0]
    anchor = phases.tolist().index(list(most_common))
    relative = origins - origins[anchor]
    cells = np.floor(relative + 0.5)
    moved = cells - relative
    moved[np.abs(moved) < ALIGNED] = 0.0
    corner = cells.min(axis=0)
    cells = (cells - corner).astype(int)
    cols, rows = (cells + [m.shape[::-1] for m in maps]).max(axis=0)
    width, height = (cells + [m.footprint for m in maps]).max(axis=0)
    return MosaicGrid(
        transform=maps[anchor].transform @ Affine.translation(*corner),
        shape=(int(rows), int(cols)),
        footprint=(float(width), float(height)),
        places=tuple(
            Place(int(row), int(col), (float(right), float(down)))
            for (col, row), (right, down) in zip(cells, moved, strict=True)
        ),
    )


def _join(
    placed: Sequence[tuple[MapFile, Place]],
    grid: MosaicGrid,
    on_top: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[LandcoverMap, int]:
    """Put the maps together, one after the other.

    A cell is taken over if it is surer than what is there, or, with `on_top`, if it has a class at all.
    No data never replaces anything. GDAL, which paints a VRT's classes and confidences apart, shows with
    `on_top` the confidence of a cell that is too unsure to have a class over another map's class: how many
    cells that concerns is returned beside the map.
    """
    class_id = np.full(grid.shape, NO_CLASS, np.uint8)
    confidence = np.full(grid.shape, NO_CONFIDENCE, np.uint8)
    painted = confidence.copy() if on_top else confidence
    for map_file, place in placed:
        new_class_id, new_confidence = read_cells(map_file)
        rows, cols = map_file.shape
        window = np.s_[place.row : place.row + rows, place.col : place.col + cols]
        better = _rank(new_class_id, new_confidence) > _rank(class_id[window], confidence[window])
        if on_top:
            better |= new_class_id != NO_CLASS
            np.copyto(painted[window], new_confidence, where=new_confidence != NO_CONFIDENCE)
        np.copyto(class_id[window], new_class_id, where=better)
        np.copyto(confidence[window], new_confidence, where=better)
        if progress is not None:
            progress(1, len(placed))
    first = placed[0][0]
    joined = LandcoverMap(
        class_id, confidence, None, first.classes, first.crs, grid.transform, grid.footprint
    )
    return joined, int(np.count_nonzero(painted != confidence))


def _rank(class_id: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return how much a cell is worth: no data 0, a class too unsure to be shown 1-101, a class 257-357."""
    sureness = np.where(confidence == NO_CONFIDENCE, 0, confidence.astype(np.uint16) + 1)
    return np.where(class_id != NO_CLASS, sureness + 256, sureness)


def _mean_confidence(map_file: MapFile) -> float:
    class_id, confidence = read_cells(map_file)
    return float(confidence[class_id != NO_CLASS].mean()) if class_id.any() else 0.0


def _choose(maps: list[MapFile], folder: Path, crs: str | None) -> list[MapFile]:
    """Return the maps in the coordinate system `crs`, and see that they can be joined."""
    if not maps:
        raise UsageError(f"{folder} holds no finished map: name the folder that classify or batch wrote to.")
    if crs is not None:
        wanted = _parse_crs(crs)
        chosen = [m for m in maps if m.crs == wanted]
        if not chosen:
            found = _counted(_crs_name(m) for m in maps)
            raise UsageError(f"{folder} holds no map in {crs}, only {found}: choose one of these with `crs`.")
        maps = chosen
    _same(
        maps,
        f"{folder} holds maps in several coordinate systems",
        lambda m: m.crs and (m.crs.to_epsg() or m.crs.to_wkt()),
        _crs_name,
        "join one at a time, such as `crs` " + _crs_name(max(maps, key=lambda m: m.crs is not None)),
    )
    if maps[0].crs is None:
        raise UsageError(
            f"{folder} holds maps without a coordinate system, and nothing says how they lie to each other: "
            "classify their scenes with `assume_crs`."
        )
    _same(
        maps,
        f"{folder} holds maps of several models",
        lambda m: m.model,
        lambda m: f"{m.model[0]} {m.model[1][:15]}",
        "classify all scenes with one, or keep each model's maps in a folder of their own",
    )
    _same(
        maps,
        f"{folder} holds maps of several cell sizes",
        lambda m: (round(m.transform.a, 4), round(m.transform.e, 4)),
        lambda m: f"{m.transform.a * metres_per_unit(m.crs):g} m",
        "classify all scenes with one `stride`, or keep each size in a folder of its own",
    )
    _same(
        maps,
        f"{folder} holds maps with other classes or colours",
        lambda m: m.classes,
        lambda m: f"those of {m.name}",
        "classify all scenes with one model",
    )
    return maps


def _same(
    maps: Sequence[MapFile],
    problem: str,
    key: Callable[[MapFile], Hashable],
    label: Callable[[MapFile], str],
    remedy: str,
) -> None:
    """Raise UsageError, naming what there is and how often, unless all maps have the same `key`."""
    labels: dict[Hashable, str] = {}
    keys = [key(m) for m in maps]
    for k, m in zip(keys, maps, strict=True):
        labels.setdefault(k, label(m))
    if len(labels) > 1:
        raise UsageError(f"{problem}, {_counted(labels[k] for k in keys)}: {remedy}.")


def _parse_crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise UsageError(f"`crs` names '{text}', which is no coordinate system: write EPSG:CODE.") from error


def _crs_name(map_file: MapFile) -> str:
    return crs_name(map_file.crs) if map_file.crs else "none"


def _check_size(grid: MosaicGrid) -> None:
    rows, cols = grid.shape
    if rows * cols > MAX_CELLS:
        raise UsageError(
            f"The mosaic would have {rows} x {cols} cells, more than {MAX_CELLS:,}: join the maps of fewer "
            "folders, or classify with a larger `stride`."
        )


def _files(output: Path, options: MosaicOptions) -> dict[str, Path]:
    """Return the files of a mosaic by kind; a scene's `NAME_landcover.geojson` is here `NAME.geojson`."""
    if output.suffix not in (".tif", ".vrt"):
        raise UsageError(
            f"`output` {output} is neither a .tif nor a .vrt: a mosaic is a GeoTIFF or a GDAL VRT."
        )
    check_polygons(options.polygons)
    names = {"landcover": output.name, "confidence": f"{output.stem}_confidence{output.suffix}"}
    if output.suffix == ".tif":
        names["names"] = f"{output.name}.aux.xml"
    names |= {"style": f"{output.stem}.qml", "areas": f"{output.stem}_areas.csv"}
    if options.polygons != "none":
        names["polygons"] = output.stem + POLYGON_SUFFIXES[options.polygons]
    names["record"] = output.stem + MOSAIC_ENDING
    return {kind: output.with_name(name) for kind, name in names.items()}


def _names_beside(output: Path) -> set[str]:
    """Return the names of files that would be wrong beside a new mosaic: older polygons, statistics."""
    endings = {ending.replace("_landcover", "") for ending in SIDE_FILES} | set(POLYGON_SUFFIXES.values())
    confidence = f"{output.stem}_confidence{output.suffix}"
    return {output.stem + ending for ending in endings} | {f"{output.name}.aux.xml", f"{confidence}.aux.xml"}


def _interrupted(output: Path) -> list[Path]:
    """Return what mosaics of that name have left that were killed: staged files, the record among them."""
    staged = leftovers(output.parent, output.stem)
    return [folder for folder in staged if (folder / f"{output.stem}{MOSAIC_ENDING}").is_file()]


def _check_nothing_in_the_way(files: dict[str, Path]) -> None:
    """See that a scene's map or another program's file is not replaced unasked."""
    if files["record"].exists():
        return
    for file in files.values():
        if file.exists():
            raise OutputError(
                f"{file} is there already and no mosaic wrote it: choose another name with `output` or pass "
                "`overwrite`."
            )


def _notes(maps: Sequence[MapFile], grid: MosaicGrid) -> list[Note]:
    count = _count(len(maps))
    moved = [place.moved for place in grid.places if any(place.moved)]
    if not moved:
        return [info("mosaic-aligned", None, f"{count} on one grid, joined without moving a cell.")]
    cell = maps[0].transform.a * metres_per_unit(maps[0].crs)
    furthest = max(abs(part) for both in moved for part in both) * cell
    return [
        warning(
            "mosaic-moved",
            "stride",
            f"Moved onto the cells of the others, since they start between them: {len(moved)} of {count}, by "
            f"up to {furthest:.0f} m in x and y (half a cell at most); classified with a smaller `stride`, "
            "maps move less.",
        )
    ]


def _contradiction(cells: int, confidence: Path) -> Note:
    return warning(
        "mosaic-unsure-on-top",
        "min_confidence",
        f"In {cells} cell{'' if cells == 1 else 's'} {confidence.name} shows how unsure the map on top is, "
        "which has no class there (`min_confidence`), over the class of another: a .tif mosaic shows that "
        "one's.",
    )


def _tags(maps: Sequence[MapFile]) -> dict[str, str]:
    name, digest = maps[0].model
    return {"model": name, "model_digest": digest}


def _write_vrts(
    mosaic: LandcoverMap, placed: Sequence[tuple[MapFile, Place]], staged: dict[str, Path], folder: Path
) -> None:
    def sources(files: Iterable[Path]) -> list[Source]:
        return [
            Source(file, place.row, place.col, *m.shape)
            for file, (m, place) in zip(files, placed, strict=True)
        ]

    tags = _tags([m for m, _ in placed])
    landcover, confidence = sources(m.landcover for m, _ in placed), sources(m.confidence for m, _ in placed)
    write_landcover_vrt(mosaic, staged["landcover"], landcover, folder, tags | self_description(mosaic))
    write_confidence_vrt(mosaic, staged["confidence"], confidence, folder, tags)


def _record(
    folder: Path,
    placed: Sequence[tuple[MapFile, Place]],
    grid: MosaicGrid,
    notes: Sequence[Note],
    files: dict[str, Path],
    areas: tuple[ClassArea, ...],
    seconds: float,
) -> dict[str, Any]:
    """Return what a reader of the mosaic may want to know; `moved` is in cells to the right and down."""
    first = placed[0][0]
    rows, columns = grid.shape
    return {
        "model": {"name": first.model[0], "digest": first.model[1]},
        "folder": str(folder),
        "crs": _crs_name(first),
        "cells": {"rows": rows, "columns": columns},
        "maps": [{"name": m.name, **asdict(place)} for m, place in sorted(placed, key=lambda p: p[0].name)],
        "notes": [asdict(note) for note in notes],
        "files": {kind: file.name for kind, file in files.items()},
        "areas": [asdict(area) for area in areas],
        "seconds": round(seconds, 3),
    }


def _counted(labels: Iterable[str]) -> str:
    """Return `EPSG:32632 (3 maps), EPSG:32633 (1 map)`, the first five of many."""
    parts = [f"{label} ({_count(n)})" for label, n in sorted(Counter(labels).items())]
    return ", ".join(parts[:5]) + (", …" if len(parts) > 5 else "")


def _count(maps: int) -> str:
    return f"{maps} map{'' if maps == 1 else 's'}"
