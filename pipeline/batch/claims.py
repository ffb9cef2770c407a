"""Claims: which batch is working in an output folder, and what killed batches left unfinished there."""

import logging
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import OutputError
from pipeline.files import leftovers

log = logging.getLogger(__name__)

CLAIM_NAME = ".batch.lock"


@contextmanager
def claim(output: Path) -> Iterator[None]:
    """Keep other batches out of the folder `output`; the system drops the claim however the process ends.

    Raises:
        OutputError: another batch has claimed the folder (the message names it), or it cannot be locked.
    """
    path = output / CLAIM_NAME
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise OutputError(
            f"Another batch{_owner(path)} is writing to {output}: wait for it, or choose another folder "
            "with `output`."
        ) from None
    except OSError as error:
        raise OutputError(
            f"{output} cannot be locked against other batches ({error.strerror}): choose another folder "
            "with `output`."
        ) from error
    try:
        with suppress(OSError):  # on some systems even the owner cannot write to a locked file
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _owner(path: Path) -> str:
    """Return the process that has claimed a folder, in parentheses; empty if it is unknown."""
    try:
        owner = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        owner = ""
    return f" ({owner})" if owner else ""


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what killed runs left unfinished in these folders.

    Call this only while holding a claim: it would also remove what another run is still writing.
    """
    for folder in set(folders):
        for path in leftovers(folder):
            log.info("Removing %s, which an earlier run did not finish.", path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
