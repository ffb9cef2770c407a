"""Downloading EuroSAT's official archives: resumed and checked, unpacked whole or not at all."""

import hashlib
import http.client
import logging
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from pipeline.errors import OutputError, TrainingError
from pipeline.training.folders import holds_class_folders, tile_folder
from pipeline.training.geotiffs import import_rasterio
from pipeline.values import NATURAL_COLOR

log = logging.getLogger(__name__)

TIMEOUT = 60
"""Seconds without a byte."""

ATTEMPTS = 6
"""To resume after the server has closed the connection."""

PAUSE = 5.0
"""Seconds before each attempt but the first."""

CHUNK = 1 << 18
"""Bytes written at a time."""


@dataclass(frozen=True)
class Archive:
    """A zip archive on the web."""

    url: str
    """Its address."""

    md5: str
    """Hexadecimal."""

    size: int
    """Bytes."""

    @property
    def name(self) -> str:
        """Return the name of the folder of class folders that it is unpacked into."""
        return Path(self.url).stem


# Zenodo record 7711810 (https://doi.org/10.5281/zenodo.7711810), with its checksums.
EUROSAT_RGB = Archive(
    "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",
    "f46e308c4d50d4bf32fedad2d3d62f3b",
    94_658_721,
)
EUROSAT_MS = Archive(
    "https://zenodo.org/records/7711810/files/EuroSAT_MS.zip",
    "091174add3c8e680a49244acf185b9f0",
    2_065_402_329,
)


def eurosat_with(bands: Sequence[str]) -> Archive:
    """Return the EuroSAT archive for these bands: the pictures for red, green and blue, else all bands."""
    return EUROSAT_RGB if set(bands) <= set(NATURAL_COLOR) else EUROSAT_MS


def download(archive: Archive, folder: Path) -> Path:
    """Download an archive and unpack it into `folder`, which is created if necessary.

    Returns the folder of class folders. Nothing is fetched twice: not if `folder` holds class folders itself,
    the unpacked archive or its zip; and if it holds the beginning of the zip (`.part`), only the rest is. The
    zip is removed once it is unpacked.

    Raises:
        TrainingError: rasterio is needed and missing; the server cannot be reached, keeps closing the
            connection or sends something else.
        OutputError: the disk is full, or `folder` cannot be written to.
    """
    target = folder / archive.name
    for place in (target, folder):
        if place.is_dir() and holds_class_folders(place):
            log.info("%s exists already: nothing is downloaded", place)
            return place
    if os.environ.get("LOCAL_RANK", "0") != "0":
        # Only the first of torchrun's processes on a machine fetches; if it fails, torchrun ends the others.
        while not target.is_dir():
            time.sleep(PAUSE)
        return target
    if archive == EUROSAT_MS:  # better reported before 2 GB are fetched
        import_rasterio(target)
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    zipped = folder / f"{archive.name}.zip"
    if not zipped.is_file():
        _fetch(archive, zipped)
    if (found := _md5(zipped)) != archive.md5:
        zipped.unlink()
        raise TrainingError(
            f"{zipped} is not what {archive.url} should be (its MD5 is {found}, not {archive.md5}) and was "
            "removed: try again."
        )
    _unpack(zipped, target)
    zipped.unlink()
    return target


def _fetch(archive: Archive, zipped: Path) -> None:
    """Download the archive to the path `zipped`, resuming from what is in `zipped`.part."""
    part = zipped.with_name(zipped.name + ".part")
    reached = _bytes_in(part)
    _check_space(zipped.parent, archive.size - reached)
    attempts_left = 0  # retry only if something came: a server that never answers will not in a minute
    with tqdm(desc=zipped.name, total=archive.size, unit="B", unit_scale=True, disable=None) as bar:
        while _bytes_in(part) < archive.size:
            reason = _fetch_rest(archive, part, bar)
            if _bytes_in(part) > reached:
                reached, attempts_left = _bytes_in(part), ATTEMPTS
            elif attempts_left == 0:
                raise TrainingError(
                    f"{archive.url} cannot be fetched ({reason}): check the network and run the same "
                    "command again, which continues where this one stopped, or fetch and unpack the file "
                    "elsewhere and name its folder with `data`, without `download`."
                )
            else:
                attempts_left -= 1
                time.sleep(PAUSE)
    part.replace(zipped)


def _fetch_rest(archive: Archive, part: Path, bar: "tqdm[NoReturn]") -> str:
    """Request what `part` lacks, append the response, and return why it ended early."""
    start = _bytes_in(part)
    headers = {"User-Agent": "landcover"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                start = 0  # this server sends only the whole file
            if response.length is not None and start + response.length != archive.size:
                return f"the file there has {start + response.length} bytes, not {archive.size}"
            _append(response, part, start, bar)
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code}, {error.reason}"
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (http.client.HTTPException, OSError) as error:
        return str(error) or type(error).__name__
    return "the server closed the connection"


def _append(response: http.client.HTTPResponse, part: Path, start: int, bar: "tqdm[NoReturn]") -> None:
    with _writing_to(part.parent):
        file = part.open("r+b" if start else "wb")
    with file:
        file.seek(start)
        bar.n = start
        while chunk := response.read(CHUNK):
            with _writing_to(part.parent):
                file.write(chunk)
                file.flush()
            bar.update(len(chunk))


def _unpack(zipped: Path, target: Path) -> None:
    """Unpack a zip so that its folder of class folders becomes `target`, whole or not at all."""
    with (
        _writing_to(target.parent),
        zipfile.ZipFile(zipped) as archive,
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as staging,
    ):
        members = archive.infolist()
        _check_space(target.parent, sum(member.file_size for member in members))
        inside = Path(staging) / target.name
        for member in tqdm(members, f"unpacking {zipped.name}", disable=None, leave=False):
            archive.extract(member, inside)
        tile_folder(inside).replace(target)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _bytes_in(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed: free some space or "
            "name another folder with `data`."
        )


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written to ({error.strerror or error}): free some space or name another "
            "folder with `data`."
        ) from error
