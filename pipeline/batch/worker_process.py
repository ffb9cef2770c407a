"""The main function of a worker process: its signals, its console, its heartbeats and its end of the pipe."""

import contextlib
import faulthandler
import logging
import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pipeline.batch.messages import Heartbeat, Idle, Setup, SetupFailed, Task
from pipeline.batch.worker import load_worker
from pipeline.errors import LandcoverError


def run_worker_process(connection: Connection, setup: Setup, number: int, console: Path | None) -> None:
    """Run a worker until it is killed: this is the main function of its process.

    Tasks come from the connection. What libraries print goes to the file `console`; None drops it.
    """
    _prepare_process(console)
    channel = _PipeChannel(connection, number)
    threading.Thread(target=_send_heartbeats, args=(channel, setup.heartbeat), daemon=True).start()
    try:
        worker = load_worker(channel, setup, number)
    except LandcoverError as error:
        channel.send(SetupFailed(error))
        return
    worker.run()


def _prepare_process(console: Path | None) -> None:
    """Ignore signals from the terminal, which are for the batch, and print to a file instead."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # they were blocked while this process was started
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    logging.raiseExceptions = False  # a log that cannot be written to a full disk is no reason to fail
    with contextlib.suppress(OSError), open(console or os.devnull, "wb", buffering=0) as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()  # prints the stacks after a crash, and on request
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)


def _send_heartbeats(channel: "_PipeChannel", seconds: float) -> None:
    """Send a heartbeat every so many seconds; end this process at once when the batch has ended."""
    parent = parent_process()
    assert parent is not None
    while not wait([parent.sentinel], timeout=seconds):
        channel.send(Heartbeat())
    os._exit(1)


class _PipeChannel:
    """A `Channel` through a pipe. The process ends if the pipe breaks, since the batch is gone then."""

    def __init__(self, connection: Connection, worker: int) -> None:
        self._connection = connection
        self._worker = worker
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def next_task(self) -> Task:
        """Wait for the next task and return it."""
        self.send(Idle(self._worker))
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)
