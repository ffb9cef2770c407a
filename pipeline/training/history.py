"""A run's history, a row an epoch: as CSV and, on request, for TensorBoard."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import write_file

HISTORY = "history.csv"
EVENTS = "tensorboard"

Row = dict[str, Any]


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, which all have the same columns, as CSV.

    Raises:
        OutputError: the file cannot be written.
    """
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, stream.getvalue().encode("utf-8"))


@contextmanager
def tensorboard(folder: Path, wanted: bool) -> Iterator[Callable[[Row], None]]:
    """Yield a function that adds a row to TensorBoard's event files in `folder`; it does nothing if unwanted.

    Rows of an interrupted run are hidden from the first row's epoch on.

    Raises:
        UsageError: it is wanted and the package tensorboard is not installed.
    """
    writer_class = _writer_class() if wanted else None
    writer = None

    def add(row: Row) -> None:
        nonlocal writer
        if writer_class is None:
            return
        writer = writer or writer_class(folder, purge_step=row["epoch"])
        for name, value in row.items():
            if name != "epoch" and value != "":
                writer.add_scalar(_tag(name), value, row["epoch"])
        writer.flush()

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()


def _tag(column: str) -> str:
    """Return TensorBoard's name of a column: both losses go under one heading, both accuracies too."""
    part, _, quantity = column.partition("_")
    return f"{quantity}/{part}" if part in ("train", "validation") else column


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "`tensorboard` needs the package tensorboard, which is not installed: 'pip install tensorboard', "
            f"or leave the option out: {HISTORY} has the same numbers."
        ) from error
    return SummaryWriter
