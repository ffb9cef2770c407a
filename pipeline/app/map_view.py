"""A finished map for the page: its description, its cells, and all of its files as one zip archive."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from pipeline.app.uploads import MIB
from pipeline.errors import SceneError
from pipeline.maps.outputs import file_name
from pipeline.maps.record import RUN_ENDING
from pipeline.scenes.ground import crs_name

COMPRESSED_SUFFIXES = frozenset({".tif", ".png", ".parquet"})
"""Of files that a zip archive cannot make smaller."""


def describe_map(record: Path) -> dict[str, Any]:
    """Return what the page needs to know about the map whose `run.json` is `record`.

    Lengths are in ground pixels, `origin` and `cell_size` in the units of `crs`.

    Raises:
        SceneError: a file is missing or damaged.
    """
    content, name = _read_record(record), map_name(record)
    try:
        with rasterio.open(_output(record, "landcover")) as dataset:
            stride = int(content["options"]["stride"])
            return {
                "name": name,
                "model": content["model"]["name"],
                **_describe_grid(dataset, stride),
                "classes": _describe_classes(content["areas"], dataset.colormap(1)),
                "tiles": content["tiles"],
                "seconds": content["seconds"],
                "notes": content["notes"],
            }
    except (RasterioError, KeyError, ValueError, TypeError) as error:
        raise _damaged(record) from error


def map_name(record: Path) -> str:
    """Return the name of the map whose `run.json` is `record`."""
    return record.name.removesuffix(RUN_ENDING)


def read_cells(record: Path) -> bytes:
    """Return each cell's class and then each cell's confidence in percent, row by row, one byte each."""
    layers = []
    try:
        for kind in ("landcover", "confidence"):
            with rasterio.open(_output(record, kind)) as dataset:
                layers.append(dataset.read(1).astype(np.uint8).tobytes())
    except RasterioError as error:
        raise _damaged(record) from error
    return b"".join(layers)


def map_files(record: Path) -> list[Path]:
    """Return all files of a map, its record first; only those in the record's own folder."""
    names = [Path(str(name)).name for name in _read_record(record)["files"].values()]
    paths = [record.with_name(name) for name in dict.fromkeys([record.name, *names])]
    return [path for path in paths if path.is_file()]


def stream_zip(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield a zip archive of files piece by piece, so that it needs neither memory nor disk."""
    buffer = _StreamBuffer()
    with zipfile.ZipFile(buffer, "w") as archive:  # type: ignore[call-overload]
        for file in files:
            entry = zipfile.ZipInfo.from_file(file, file.name, strict_timestamps=False)
            if file.suffix not in COMPRESSED_SUFFIXES:
                entry.compress_type = zipfile.ZIP_DEFLATED
            with file.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(MIB):
                    target.write(chunk)
                    yield buffer.take()
    yield buffer.take()


class _StreamBuffer:
    """A file without `seek` for `zipfile` to write into."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, chunk: bytes) -> int:
        self._chunks.append(bytes(chunk))
        return len(chunk)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken, self._chunks = b"".join(self._chunks), []
        return taken


def _describe_grid(dataset: DatasetReader, stride: int) -> dict[str, Any]:
    footprint_cols, footprint_rows = (float(number) for number in dataset.tags()["FOOTPRINT_CELLS"].split())
    transform = dataset.transform
    return {
        "rows": dataset.height,
        "cols": dataset.width,
        "stride": stride,
        "width": footprint_cols * stride,
        "height": footprint_rows * stride,
        "crs": crs_name(dataset.crs) if dataset.crs else None,
        "origin": [transform.c, transform.f],
        "cell_size": [transform.a, transform.e],
    }


def _describe_classes(
    areas: Sequence[dict[str, Any]], colors: dict[int, tuple[int, ...]]
) -> list[dict[str, Any]]:
    return [
        {
            "id": area["class_id"],
            "name": area["class_name"],
            "color": "#" + bytes(colors[area["class_id"]][:3]).hex(),
            "hectares": area["hectares"],
            "share": area["share_percent"],
        }
        for area in areas
    ]


def _output(record: Path, kind: str) -> Path:
    return record.with_name(file_name(map_name(record), kind))


def _read_record(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if isinstance(content["files"], dict):
            return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(record) from error
    raise _damaged(record)


def _damaged(record: Path) -> SceneError:
    return SceneError(
        f"The map of {map_name(record)} cannot be read: classify its scene again with `overwrite`."
    )
