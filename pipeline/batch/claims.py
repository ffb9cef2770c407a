"""Claims: which batch is working in an output folder, and what killed batches left unfinished there."""

import errno
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pipeline.errors import OutputError
from pipeline.files import leftovers

log = logging.getLogger(__name__)

CLAIM_NAME = ".batch.lock"

TIMEOUT = 3.0
"""Seconds to wait for a lock file to go: by then one that was left damaged counts as abandoned."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems answer that know locks but grant none: NFS without its lock service, some mounts."""


@contextmanager
def claim(output: Path) -> Iterator[None]:
    """Keep other batches out of the folder `output`; the claim ends however the process does.

    Where the file system has no locks (ENOSYS), the lock file's existence counts, and a claim is taken over
    whose process on this machine is gone. Where it has them but grants none, the batch goes on without.

    Raises:
        OutputError: another batch has claimed the folder (the message names it), or it cannot be locked.
    """
    lock = _acquire(output)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(output: Path) -> BaseFileLock | None:
    """Return the lock of the folder `output`, None if there can be none; raises as `claim` does."""
    path = output / CLAIM_NAME
    lock: BaseFileLock = FileLock(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flock not supported")  # where a SoftFileLock serves as well
            try:
                lock.acquire(blocking=False)
            except Timeout:
                if not isinstance(lock, SoftFileLock):
                    raise
                lock.acquire(timeout=TIMEOUT)
    except Timeout:
        gone = f" If it is gone, remove {path}." if isinstance(lock, SoftFileLock) else ""
        raise OutputError(
            f"Another batch{_owner(path)} is writing to {output}: wait for it, or choose another folder "
            f"with `output`.{gone}"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(
                f"{output} cannot be locked against other batches ({error.strerror}): choose another folder "
                "with `output`."
            ) from error
        log.warning(
            "%s cannot be locked against other batches (%s): run no other batch on it meanwhile.",
            output,
            error.strerror,
        )
        return None
    if not isinstance(lock, SoftFileLock):  # that has written it, and knows by it whether we are alive
        with suppress(OSError):  # on some systems even the owner cannot write to a locked file
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    return lock


def _owner(path: Path) -> str:
    """Return the process that has claimed a folder, in parentheses; empty if it is unknown."""
    try:
        process, host = path.read_text(encoding="utf-8").splitlines()[:2]
    except (OSError, ValueError):
        return ""
    return f" (process {process} on {host})"


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what killed runs left unfinished in these folders.

    Call this only while holding a claim: it would also remove what another run is still writing.
    """
    for folder in set(folders):
        for path in leftovers(folder):
            log.info("Removing %s, which an earlier run did not finish.", path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s.", path, error.strerror)
