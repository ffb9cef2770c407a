"""The files of a mosaic: what they are called, which are wanted, and which may be in the way.

They are those of a scene's map (`outputs`). In the VRT form two of them are VRTs, and the names of the
classes are inside one of these.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import OutputError, UsageError
from pipeline.files import leftovers
from pipeline.maps.mosaic_grid import Placed
from pipeline.maps.outputs import MOSAIC_ENDING, Output, OutputContext, mosaic_outputs, possible_files
from pipeline.maps.vrt import Source, write_confidence_vrt, write_landcover_vrt
from pipeline.options import MosaicOptions, check_polygons

_RASTERS = ("landcover", "confidence")
"""What every finished map has, and a VRT can therefore be made of. They are listed first."""


@dataclass(frozen=True)
class MosaicFiles:
    """The files of one mosaic."""

    output: Path
    """The mosaic itself."""

    outputs: tuple[Output, ...]
    """All files that a mosaic of this form can have."""

    wanted: tuple[Output, ...]
    """Those that the options ask for."""

    @classmethod
    def of(cls, output: Path, options: MosaicOptions) -> "MosaicFiles":
        """Return the files of the mosaic `output`.

        Raises:
            UsageError: `output` is neither a .tif nor a .vrt, or there is no such format of polygons.
        """
        if output.suffix not in (".tif", ".vrt"):
            raise UsageError(
                f"`output` {output} is neither a .tif nor a .vrt: a mosaic is a GeoTIFF or a GDAL VRT."
            )
        check_polygons(options.polygons)
        outputs = sorted(mosaic_outputs(), key=lambda row: row.kind not in _RASTERS)
        if output.suffix == ".vrt":
            outputs = list(_virtual(outputs))
        return cls(output, tuple(outputs), tuple(row for row in outputs if row.applies(options)))

    @property
    def virtual(self) -> bool:
        """Tell whether the mosaic is a VRT."""
        return self.output.suffix == ".vrt"

    @property
    def record(self) -> Path:
        """Return the path of the mosaic's record, which is written last."""
        return self.output.with_name(self.output.stem + MOSAIC_ENDING)

    def names(self) -> dict[str, str]:
        """Return the names of the wanted files by kind."""
        return {row.kind: self.output.stem + row.ending for row in self.wanted}

    def possible(self) -> set[str]:
        """Return the names of all files that an earlier mosaic may have left: other polygons, statistics."""
        return possible_files(self.output.stem, self.outputs)

    def written_from(self, placed: Placed) -> Sequence[Output]:
        """Return the wanted files with their writers; those of a VRT have to know where the maps lie."""
        if not self.virtual:
            return self.wanted
        writers = _vrt_writers(placed, self.output.parent)
        return [replace(row, write=writers.get(row.kind, row.write)) for row in self.wanted]

    def interrupted(self) -> list[Path]:
        """Return the staging folders of runs that were killed after all files had been written."""
        staged = leftovers(self.output.parent, self.output.stem)
        return [folder for folder in staged if (folder / self.record.name).is_file()]

    def check_nothing_in_the_way(self) -> None:
        """Raise OutputError if a scene's map or another program's file would be replaced."""
        if self.record.exists():
            return
        for name in self.names().values():
            if self.output.with_name(name).exists():
                raise OutputError(
                    f"{self.output.with_name(name)} is there already and no mosaic wrote it: choose another "
                    "name with `output` or pass `overwrite`."
                )


def _virtual(outputs: Sequence[Output]) -> Iterator[Output]:
    """Yield the outputs of a mosaic in the VRT form."""
    for row in outputs:
        if row.kind in _RASTERS:
            yield replace(row, ending=row.ending.replace(".tif", ".vrt"))
        elif row.kind != "names":
            yield row


def _vrt_writers(placed: Placed, folder: Path) -> dict[str, Callable[[OutputContext, Path], None]]:
    """Return the writers, by kind, of the VRTs that are going to lie in `folder`."""
    landcover = [Source(m.landcover, place.row, place.col, *m.shape) for m, place in placed]
    confidence = [Source(m.confidence, place.row, place.col, *m.shape) for m, place in placed]
    return {
        "landcover": lambda context, path: write_landcover_vrt(
            context.landcover, path, landcover, folder, context.tags
        ),
        "confidence": lambda context, path: write_confidence_vrt(
            context.landcover, path, confidence, folder, context.tags
        ),
    }
