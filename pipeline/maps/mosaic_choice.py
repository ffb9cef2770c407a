"""Which maps are joined into a mosaic: of one model, one cell size, one coordinate system and one legend."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from rasterio.crs import CRS
from rasterio.errors import CRSError

from pipeline.errors import UsageError
from pipeline.maps.areas import metres_per_unit
from pipeline.maps.finished import MapFile
from pipeline.scenes.ground import crs_name


def choose_maps(maps: list[MapFile], folder: Path, crs: str | None) -> list[MapFile]:
    """Return those of the maps in `folder` that are in the coordinate system `crs`; None chooses all.

    Raises:
        UsageError: there are none, or they cannot be joined.
    """
    if not maps:
        raise UsageError(f"{folder} holds no finished map: name the folder that classify or batch wrote to.")
    if crs is not None:
        maps = _in_crs(maps, folder, crs)
    _check_coordinates(maps, folder)
    _check_same(
        maps,
        f"{folder} holds maps of several models",
        lambda m: m.model,
        lambda m: f"{m.model[0]} {m.model[1][:15]}",
        "classify all scenes with one, or keep each model's maps in a folder of their own",
    )
    _check_same(
        maps,
        f"{folder} holds maps of several cell sizes",
        lambda m: (round(m.transform.a, 4), round(m.transform.e, 4)),
        lambda m: f"{m.transform.a * metres_per_unit(m.crs):g} m",
        "classify all scenes with one `stride`, or keep each size in a folder of its own",
    )
    _check_same(
        maps,
        f"{folder} holds maps with other classes or colours",
        lambda m: m.classes,
        lambda m: f"those of {m.name}",
        "classify all scenes with one model",
    )
    return maps


def map_crs_name(map_file: MapFile) -> str:
    """Return the name of a map's coordinate system, `none` in pixel space."""
    return crs_name(map_file.crs) if map_file.crs else "none"


def count_of_maps(maps: int) -> str:
    """Return `1 map`, `2 maps`."""
    return f"{maps} map{'' if maps == 1 else 's'}"


def _in_crs(maps: list[MapFile], folder: Path, crs: str) -> list[MapFile]:
    """Return the maps in a coordinate system, at least one."""
    try:
        wanted = CRS.from_user_input(crs)
    except CRSError as error:
        raise UsageError(f"`crs` names '{crs}', which is no coordinate system: write EPSG:CODE.") from error
    chosen = [m for m in maps if m.crs == wanted]
    if not chosen:
        found = _counted(map_crs_name(m) for m in maps)
        raise UsageError(f"{folder} holds no map in {crs}, only {found}: choose one of these with `crs`.")
    return chosen


def _check_coordinates(maps: list[MapFile], folder: Path) -> None:
    """Raise UsageError unless all maps have a coordinate system, and the same one."""
    _check_same(
        maps,
        f"{folder} holds maps in several coordinate systems",
        lambda m: m.crs and (m.crs.to_epsg() or m.crs.to_wkt()),
        map_crs_name,
        "join one at a time, such as `crs` " + map_crs_name(max(maps, key=lambda m: m.crs is not None)),
    )
    if maps[0].crs is None:
        raise UsageError(
            f"{folder} holds maps without a coordinate system, and nothing says where they lie: classify "
            "their scenes with `assume_crs`."
        )


def _check_same(
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


def _counted(labels: Iterable[str]) -> str:
    """Return `EPSG:32632 (3 maps), EPSG:32633 (1 map)`, the first five of many."""
    parts = [f"{label} ({count_of_maps(n)})" for label, n in sorted(Counter(labels).items())]
    return ", ".join(parts[:5]) + (", …" if len(parts) > 5 else "")
