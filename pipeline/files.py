"""Files appear whole or not at all.

Every output is first made in memory, by GDAL's `/vsimem` or a `BytesIO`: maps are small, a cell for
each stride step. Python then writes the bytes, so that a full disk is noticed and named in the same way
for every format, and no driver's side files (journals, statistics) lie about in the user's folder.
"""

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import OutputError

# What is not whole yet: hidden, and told apart from other runs' by eight random digits.
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_files(files: Mapping[Path, bytes | memoryview], stale: Iterable[Path] = ()) -> None:
    """Write all `files` under temporary names in their folders, then rename them in the order given.

    Put the file that says "done" last. `stale` names side files of earlier versions (statistics, a
    database journal) that would be wrong beside the new ones; they are removed just before the renaming.

    Raises:
        OutputError: a file cannot be written; no temporary file is left behind.
    """
    temporary = {path: _unfinished(path) for path in files}
    path = next(iter(files))
    try:
        for path, data in files.items():
            with temporary[path].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
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


def make_folder(folder: Path) -> None:
    """Make an output folder, and see now rather than hours later whether it can be written to.

    Raises:
        OutputError: it cannot be made, or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(_explain(folder, error)) from error


@contextmanager
def staging_folder(folder: Path, name: str) -> Iterator[Path]:
    """Give a hidden folder inside `folder` for the files of one result; it is gone in the end.

    Whoever fills it moves the files out when all of them are whole (`publish`). Errors that name the
    hidden folder are told with the name of the one that the user knows.

    Raises:
        OutputError: it cannot be made.
    """
    staging = _unfinished(folder / name)
    try:
        staging.mkdir()
        yield staging
    except OutputError as error:
        raise OutputError(str(error).replace(str(staging), str(folder))) from error
    except OSError as error:
        raise OutputError(_explain(folder, error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, folder: Path, last: str, stale: Iterable[str] = ()) -> None:
    """Move all files of `staging` into `folder`; the one named `last`, which says "done", in the end.

    An earlier file of that name goes first, and so do the `stale` ones, so that at no moment it vouches
    for files that are not its own.

    Raises:
        OutputError: a file cannot be moved or removed.
    """
    files = sorted(staging.iterdir(), key=lambda path: (path.name == last, path.name))
    try:
        for name in (last, *stale):
            (folder / name).unlink(missing_ok=True)
        for file in files:
            file.replace(folder / file.name)
    except OSError as error:
        raise OutputError(_explain(folder, error)) from error


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Return the unfinished files and staging folders in a folder: of a run that goes on, or was killed.

    `name` asks for those of one result only. A folder that cannot be listed has none.
    """
    try:
        found = [(path, _UNFINISHED.fullmatch(path.name)) for path in folder.iterdir()]
    except OSError:
        return []
    return [path for path, match in found if match and name in (None, match[1])]


def _unfinished(path: Path) -> Path:
    """Return a name beside `path` under which to write it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _explain(path: Path, error: OSError) -> str:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    remedy = "free some space or choose" if error.errno in _NO_SPACE else "choose"
    return f"{path} cannot be written ({reason}): {remedy} another folder with `output`."
