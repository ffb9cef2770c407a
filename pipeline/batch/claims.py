"""An output folder belongs to one batch at a time; what killed ones left behind goes."""

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

LOCK = ".batch.lock"


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Hold the folder `output` against other batches; the system lets go of it however this one ends.

    Raises OutputError, naming the other batch, if it is held already.
    """
    path = output / LOCK
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
        with suppress(OSError):  # where a lock also keeps its holder from writing, the name is done without
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _owner(lock: Path) -> str:
    try:
        owner = lock.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        owner = ""
    return f" ({owner})" if owner else ""


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what runs that were killed had not finished writing into these folders.

    Only for who holds them: of a run that is still writing it would take the same.
    """
    for folder in set(folders):
        for path in leftovers(folder):
            log.info("Removing %s, which an earlier run did not finish.", path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
