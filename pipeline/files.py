"""Writing files so that they appear complete or not at all.

Every output is first made in memory, by GDAL's `/vsimem` or a `BytesIO`: maps are small. Python then writes
the bytes, so that a full disk is detected and reported in the same way for every format, and no driver leaves
side files (journals, statistics) in the user's folder.
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

_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
"""The name of an unfinished file: hidden, with eight random digits, so that two runs do not share one."""

LONGEST_NAME = 255
"""Bytes that a file's name may have on all common disks."""

_TEMPORARY = len("..12345678.part")
"""How much longer an unfinished file's name is."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors that go away when the user frees some space."""


def write_files(files: Mapping[Path, bytes | memoryview]) -> None:
    """Write all `files` under temporary names in their folders, then rename them in the order given.

    Put the file that says "done" last.

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
        for path in files:
            temporary[path].replace(path)
    except OSError as error:
        raise OutputError(_explain(path, error)) from error
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write one file completely or not at all, see `write_files`."""
    write_files({path: data})


def longest_stem(endings: Iterable[str]) -> int:
    """Return how many bytes a name may have to which each of the endings is added, unfinished ones too."""
    return LONGEST_NAME - _TEMPORARY - max(map(len, endings))


def make_folder(folder: Path) -> None:
    """Make an output folder and check that it is writable, now rather than hours later.

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
    """Make a hidden folder inside `folder` for the files of one result, and remove it at the end.

    The caller moves the files out when all of them are complete (`publish`). Errors name `folder`, which the
    user knows, in place of the hidden one.

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
    """Move all files of `staging` into `folder`; the one named `last`, which says "done", at the end.

    An earlier file of that name is removed first, and so are the `stale` ones: at no moment does it vouch
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
    """Return the unfinished files and staging folders in a folder, of runs in progress and of killed ones.

    `name` restricts them to those of one result. A folder that cannot be listed has none.
    """
    try:
        found = [(path, _UNFINISHED.fullmatch(path.name)) for path in folder.iterdir()]
    except OSError:
        return []
    return [path for path, match in found if match and name in (None, match[1])]


def _unfinished(path: Path) -> Path:
    """Return a temporary path beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _explain(path: Path, error: OSError) -> str:
    """Return a sentence that says why a path cannot be written, and what to do."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno == errno.ENAMETOOLONG:
        return f"{path} cannot be written ({reason}): give the scene, or `output`, a shorter name."
    remedy = "free some space or choose" if error.errno in _NO_SPACE else "choose"
    return f"{path} cannot be written ({reason}): {remedy} another folder with `output`."
