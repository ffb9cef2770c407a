"""Files appear whole or not at all.

Every output is first made in memory, by GDAL's `/vsimem` or a `BytesIO`: maps are small, a cell for
each stride step. Python then writes the bytes, so that a full disk is noticed and named in the same way
for every format, and no driver's side files (journals, statistics) lie about in the user's folder.
"""

import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.errors import OutputError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_files(files: Mapping[Path, bytes | memoryview], stale: Iterable[Path] = ()) -> None:
    """Write all `files` under temporary names in their folders, then rename them in the order given.

    Put the file that says "done" last. `stale` names side files of earlier versions (statistics, a
    database journal) that would be wrong beside the new ones; they are removed just before the renaming.

    Raises:
        OutputError: a file cannot be written; no temporary file is left behind.
    """
    temporary = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") for path in files}
    path = next(iter(files))
    try:
        for path, data in files.items():
            with temporary[path].open("xb") as file:
                file.write(data)
        for path in stale:
            path.unlink(missing_ok=True)
        for path in files:
            temporary[path].replace(path)
    except OSError as error:
        raise OutputError(_explain(path, error)) from error
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)


def write_file(path: Path, data: bytes | memoryview, stale: Iterable[Path] = ()) -> None:
    """Write one file whole or not at all, see `write_files`."""
    write_files({path: data}, stale)


def _explain(path: Path, error: OSError) -> str:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    remedy = "free some space or choose" if error.errno in _NO_SPACE else "choose"
    return f"{path} cannot be written ({reason}): {remedy} another folder with -o."
