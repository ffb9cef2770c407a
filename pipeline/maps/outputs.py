"""The table of outputs: every file that a map can have, one row each. Used by `classify` and by `mosaic`.

To add an output, write a module with a function that writes it, and add a row to `TABLE`. Everything else
follows from the row: which files a run writes and records, which old ones it removes, what a batch's search
does not take for a scene, and what the app may serve.

Modules that write files are imported when they write: to know the names of the outputs, as the search for
scenes must, is no reason to wait seconds for geopandas and matplotlib.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.options import POLYGON_FORMATS

if TYPE_CHECKING:
    from pipeline.maps.landcover_map import LandcoverMap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputContext:
    """What an output can be made from. Add a field when a new output needs more than this."""

    landcover: "LandcoverMap"
    """The map."""

    name: str
    """The scene's or the mosaic's name, with which the names of all files start."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """The name (`model`) and the digest (`model_digest`) of the model, as metadata for files."""


@dataclass(frozen=True)
class Output:
    """A row of the table: one file of a map."""

    kind: str
    """Its key in the `files` of `run.json`. Rows that exclude each other may share it."""

    ending: str
    """What follows the scene's name in the file's name."""

    write: Callable[[OutputContext, Path], None]
    """Writes the file; raises OutputError if it cannot be written."""

    applies: Callable[[Any], bool] = lambda options: True
    """Tells by the ClassifyOptions, or the MosaicOptions, whether the file is wanted."""

    obstacle: Callable[["LandcoverMap"], str | None] = lambda landcover: None
    """Returns why this map cannot have the file, as a sentence: it is then left out with a warning."""

    in_mosaics: bool = True
    """Whether mosaics can have the file too."""


def _write_landcover(context: OutputContext, path: Path) -> None:
    from pipeline.maps.cog import write_landcover

    write_landcover(context.landcover, path, context.tags)


def _write_names(context: OutputContext, path: Path) -> None:
    from pipeline.maps.cog import write_names

    write_names(context.landcover, path)


def _write_confidence(context: OutputContext, path: Path) -> None:
    from pipeline.maps.cog import write_confidence

    write_confidence(context.landcover, path, context.tags)


def _write_style(context: OutputContext, path: Path) -> None:
    from pipeline.maps.style import write_style

    write_style(context.landcover.classes, path)


def _write_areas(context: OutputContext, path: Path) -> None:
    from pipeline.maps.areas import write_areas

    write_areas(context.landcover, path)


def _write_probabilities(context: OutputContext, path: Path) -> None:
    from pipeline.maps.cog import write_probabilities

    write_probabilities(context.landcover, path, context.tags)


def _write_preview(context: OutputContext, path: Path) -> None:
    from pipeline.maps.preview import write_preview

    write_preview(context.landcover, path, title=context.name)


def _write_polygons(context: OutputContext, path: Path, file_format: str) -> None:
    from pipeline.maps.polygons import write_polygons

    write_polygons(context.landcover, path, file_format)


def _no_polygons(landcover: "LandcoverMap", file_format: str) -> str | None:
    from pipeline.maps.polygons import polygons_possible

    if polygons_possible(file_format, landcover.crs):
        return None
    return "no polygons, since GeoJSON is in WGS 84 and the scene has no CRS: choose `polygons` gpkg."


def _polygons(file_format: str) -> Output:
    """Return the row for one format of polygons."""
    return Output(
        "polygons",
        f"_landcover.{file_format}",
        partial(_write_polygons, file_format=file_format),
        applies=lambda options: options.polygons == file_format,
        obstacle=partial(_no_polygons, file_format=file_format),
    )


TABLE: tuple[Output, ...] = (
    Output("landcover", "_landcover.tif", _write_landcover),
    Output("names", "_landcover.tif.aux.xml", _write_names),
    Output("confidence", "_confidence.tif", _write_confidence),
    Output("style", "_landcover.qml", _write_style),
    Output("areas", "_areas.csv", _write_areas),
    Output(
        "probabilities",
        "_probabilities.tif",
        _write_probabilities,
        applies=lambda options: options.probabilities,
        in_mosaics=False,
    ),
    Output(
        "preview",
        "_landcover.png",
        _write_preview,
        applies=lambda options: options.preview,
        in_mosaics=False,
    ),
    *map(_polygons, POLYGON_FORMATS),
)
"""All outputs, in the order in which they are written and listed in `run.json`."""

MOSAIC_ENDING = "_mosaic.json"
"""What follows a mosaic's name in the name of its record: such a map is no scene's."""

_SIDE_ENDINGS = {".tif": (".aux.xml",), ".vrt": (".aux.xml",), ".gpkg": ("-wal", "-shm", "-journal")}
"""What other programs put beside a file (statistics, a database's journals), wrong beside a new one."""


def scene_outputs() -> tuple[Output, ...]:
    """Return all outputs that a scene's map can have."""
    return TABLE


def mosaic_outputs() -> tuple[Output, ...]:
    """Return all outputs that a mosaic can have: a scene's `NAME_landcover.tif` is a mosaic's `NAME.tif`."""
    return tuple(
        replace(output, ending=output.ending.removeprefix("_landcover"))
        for output in TABLE
        if output.in_mosaics
    )


def file_name(name: str, kind: str) -> str:
    """Return what the first output of a kind is called in the map of the scene `name`."""
    return name + next(output.ending for output in TABLE if output.kind == kind)


def is_output(file: str) -> bool:
    """Tell by its name whether a file belongs to a scene's map or, but for the classes, to a mosaic."""
    return file.endswith((*(output.ending for output in TABLE), "_confidence.vrt", MOSAIC_ENDING))


def suffixes() -> frozenset[str]:
    """Return the suffixes of all outputs: `.tif`, `.xml` ..."""
    return frozenset(Path(output.ending).suffix for output in TABLE)


def possible_files(name: str, outputs: Iterable[Output]) -> set[str]:
    """Return the names of all files that outputs of `name` may have left, side files included."""
    files = {name + output.ending for output in outputs}
    return files | {file + side for file in files for side in _SIDE_ENDINGS.get(Path(file).suffix, ())}


def write_outputs(outputs: Iterable[Output], context: OutputContext, folder: Path) -> dict[str, Path]:
    """Write those outputs that the map can have into `folder`; returns the files by kind.

    Raises:
        OutputError: a file cannot be written.
    """
    files = {}
    for output in outputs:
        if obstacle := output.obstacle(context.landcover):
            log.warning("%s: %s", context.name, obstacle)
            continue
        files[output.kind] = folder / (context.name + output.ending)
        output.write(context, files[output.kind])
    return files
