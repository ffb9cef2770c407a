"""What of a scene is classified already, kept on disk so that a long run resumes inside the scene.

A journal is a file beside the outputs, hidden, that belongs to one model, input and set of options. It
holds each block's probabilities, checksummed, and so survives being cut off anywhere. Runs that are over
in half a minute leave no trace.
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

_HEAD = struct.Struct("<II")  # the bytes that follow, and their CRC-32


def journal_path(output: Path, name: str) -> Path:
    """Return where the journal of the scene `name` lies."""
    return output / f".{name}.journal"


class Journal:
    """Blocks that are done, in order from the top of the scene.

    `identity` says what they belong to: what an earlier run left is used if its identity is equal, and
    dropped otherwise. Nothing is written before `wait` seconds have passed. A journal that can't be
    written is done without, with a warning.
    """

    def __init__(self, path: Path, identity: dict[str, Any], wait: float = JOURNAL_AFTER):
        self.path = path
        self._identity = json.dumps(identity, sort_keys=True).encode()
        self._write_from = time.monotonic() + wait
        self._pending: list[bytes] = []
        self._end = 0  # the length of what is whole in the file
        self._broken = False

    def blocks(self) -> Iterator[tuple[TileBlock, np.ndarray]]:
        """Yield the blocks of an earlier run, without their pixels, and their tiles' probabilities."""
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
        """Keep the next block."""
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
            log.warning("%s cannot be written, so this run can't be resumed: %s", self.path, error.strerror)
            self._broken = True
            self.remove()
        self._pending.clear()

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


def _read_record(file: io.BufferedReader) -> bytes | None:
    """Return the next record; None at the end and where the file was cut off or damaged."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    record = file.read(length)
    # Zeros, which a power cut may leave, are no record although their checksum is right.
    return record if 0 < length == len(record) and zlib.crc32(record) == checksum else None


def _pack(block: TileBlock, probabilities: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    place = np.array([block.tile_row, block.tile_rows, block.cell_row])
    for array in (place, block.index, block.cell_valid, probabilities):
        np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _unpack(record: bytes) -> tuple[TileBlock, np.ndarray]:
    buffer = io.BytesIO(record)
    place, index, cell_valid, probabilities = (np.load(buffer, allow_pickle=False) for _ in range(4))
    tile_row, tile_rows, cell_row = place.tolist()
    no_pixels = np.empty((0, 0, 0, 0), np.uint8)
    return TileBlock(tile_row, tile_rows, index, no_pixels, cell_row, cell_valid), probabilities
