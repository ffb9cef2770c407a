"""Resumable progress of one scene, on disk: an interrupted run continues where it stopped.

A journal is a hidden file in the output folder that belongs to one model, input and set of options. It holds
the probabilities of each block with a checksum, so that it may be cut off or damaged anywhere. Runs of less
than half a minute write none.
"""

import io
import json
import logging
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.options import JOURNAL_AFTER
from pipeline.tiles import TileBlock

log = logging.getLogger(__name__)

_HEAD = struct.Struct("<II")
"""The header of a record: how many bytes follow, and their CRC-32."""


def journal_path(output: Path, name: str) -> Path:
    """Return the path of the journal of the scene `name`."""
    return output / f".{name}.journal"


class Journal:
    """The classified blocks of a scene, in order from the top.

    An earlier run's blocks are used if its `identity` is the same, and overwritten otherwise. Nothing is
    written before `wait` seconds have passed. If the journal cannot be written, the run goes on without one,
    with a warning.
    """

    def __init__(self, path: Path, identity: dict[str, Any], wait: float = JOURNAL_AFTER) -> None:
        self.path = path
        self._identity = json.dumps(identity, sort_keys=True).encode()
        self._write_from = time.monotonic() + wait
        self._pending: list[bytes] = []
        self._end = 0  # of the last complete record in the file
        self._broken = False

    def blocks(self) -> Iterator[tuple[TileBlock, np.ndarray]]:
        """Yield the blocks of an earlier run, without pixels, and their probabilities (k, classes).

        Stops at the first record that is damaged: what follows is classified again.
        """
        try:
            with self.path.open("rb") as file:
                if _read_record(file) != self._identity:
                    return
                self._end = file.tell()
                while (record := _read_record(file)) is not None:
                    yield _unpack(record)
                    self._end = file.tell()
        except OSError:
            return

    def add(self, block: TileBlock, probabilities: np.ndarray) -> None:
        """Add the next block; `probabilities` (k, classes) belong to `block.index`."""
        if self._broken:
            return
        self._pending.append(_pack(block, probabilities))
        if time.monotonic() < self._write_from:
            return
        if not self._end:
            self._pending.insert(0, self._identity)
        try:
            with self.path.open("r+b" if self._end else "wb") as file:
                file.truncate(self._end)
                file.seek(self._end)
                for record in self._pending:
                    file.write(_HEAD.pack(len(record), zlib.crc32(record)) + record)
                self._end = file.tell()
        except OSError as error:
            log.warning("%s cannot be written, so this run cannot be resumed: %s", self.path, error.strerror)
            self._broken = True
            self.remove()
        self._pending.clear()

    def remove(self) -> None:
        """Remove the file if there is one."""
        self.path.unlink(missing_ok=True)


def _read_record(file: io.BufferedReader) -> bytes | None:
    """Return the next record; None at the end or where the file was cut off or damaged."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    record = file.read(length)
    # A power cut may leave zeros: an empty record with the right checksum, which is none of ours.
    return record if 0 < length == len(record) and zlib.crc32(record) == checksum else None


def _pack(block: TileBlock, probabilities: np.ndarray) -> bytes:
    """Return a block, without its pixels, and its probabilities as a record."""
    buffer = io.BytesIO()
    place = np.array([block.tile_row, block.tile_rows, block.cell_row])
    for array in (place, block.index, block.cell_valid, probabilities):
        np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _unpack(record: bytes) -> tuple[TileBlock, np.ndarray]:
    """Return the block and the probabilities in a record."""
    buffer = io.BytesIO(record)
    place, index, cell_valid, probabilities = (np.load(buffer, allow_pickle=False) for _ in range(4))
    tile_row, tile_rows, cell_row = place.tolist()
    no_pixels = np.empty((0, 0, 0, 0), np.uint8)
    return TileBlock(tile_row, tile_rows, index, no_pixels, cell_row, cell_valid), probabilities
