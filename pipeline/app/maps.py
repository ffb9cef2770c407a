"""A finished map as the page shows it: described, cell by cell, and with all of its files in one archive."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.app.uploads import MIB
from pipeline.errors import SceneError
from pipeline.maps.outputs import file_name
from pipeline.maps.record import RUN_ENDING
from pipeline.scenes.ground import crs_name

PACKED_ALREADY = frozenset({".tif", ".png", ".parquet"})


def describe_map(record: Path) -> dict[str, Any]:
    """Return what the page needs to know of the map whose `run.json` this is.

    Lengths are in ground pixels, `origin` and `cell_size` in the units of `crs`. Raises SceneError if a
    file is missing or damaged.
    """
    content, name = _read_record(record), record.name.removesuffix(RUN_ENDING)
    try:
        with rasterio.open(record.with_name(file_name(name, "landcover"))) as dataset:
            colours = dataset.colormap(1)
            columns, rows = (float(number) for number in dataset.tags()["FOOTPRINT_CELLS"].split())
            t, shape = dataset.transform, dataset.shape
            crs = crs_name(dataset.crs) if dataset.crs else None
        stride = int(content["options"]["stride"])
        areas = content["areas"]
        return {
            "name": name,
            "model": content["model"]["name"],
            "rows": shape[0],
            "columns": shape[1],
            "stride": stride,
            "width": columns * stride,
            "height": rows * stride,
            "crs": crs,
            "origin": [t.c, t.f],
            "cell_size": [t.a, t.e],
            "classes": [
                {
                    "id": area["class_id"],
                    "name": area["class_name"],
                    "color": "#" + bytes(colours[area["class_id"]][:3]).hex(),
                    "hectares": area["hectares"],
                    "share": area["share_percent"],
                }
                for area in areas
            ],
            "tiles": content["tiles"],
            "seconds": content["seconds"],
            "notes": content["notes"],
        }
    except (RasterioError, KeyError, ValueError, TypeError) as error:
        raise _damaged(record) from error


def map_cells(record: Path) -> bytes:
    """Return each cell's class and then each cell's confidence in percent, row by row, a byte each."""
    name = record.name.removesuffix(RUN_ENDING)
    try:
        layers = []
        for kind in ("landcover", "confidence"):
            with rasterio.open(record.with_name(file_name(name, kind))) as dataset:
                layers.append(dataset.read(1).astype(np.uint8).tobytes())
        return b"".join(layers)
    except RasterioError as error:
        raise _damaged(record) from error


def map_files(record: Path) -> list[Path]:
    """Return all of a map's files, its record first; names that lead elsewhere are not followed."""
    names = [Path(str(name)).name for name in _read_record(record)["files"].values()]
    return [
        path for name in dict.fromkeys([record.name, *names]) if (path := record.with_name(name)).is_file()
    ]


def archive(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield a zip archive of files, piece by piece, so that it needs neither memory nor disk."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as packed:  # type: ignore[call-overload]
        for file in files:
            entry = zipfile.ZipInfo.from_file(file, file.name, strict_timestamps=False)
            if file.suffix not in PACKED_ALREADY:
                entry.compress_type = zipfile.ZIP_DEFLATED
            with file.open("rb") as source, packed.open(entry, "w") as target:
                while part := source.read(MIB):
                    target.write(part)
                    yield sink.take()
    yield sink.take()


class _Sink:
    """What `zipfile` writes into: a stream that cannot go back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._parts = b"".join(self._parts), []
        return taken


def _read_record(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if isinstance(content["files"], dict):
            return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(record) from error
    raise _damaged(record)


def _damaged(record: Path) -> SceneError:
    name = record.name.removesuffix(RUN_ENDING)
    return SceneError(f"The map of {name} cannot be read: classify its scene again with `overwrite`.")
