"""How a command runs and ends: its logging, its exit status, and one clear sentence for each error.

Exit status: 0 all done, 1 something failed, 2 wrong use, 130 interrupted.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import click
from tqdm import tqdm

from pipeline.addresses import scrub
from pipeline.commands.lazy import LazyCommand
from pipeline.commands.printing import in_command_words, print_error
from pipeline.errors import DeviceError, ModelError, UsageError

FAILED, WRONG_USE = 1, 2
INTERRUPTED = 130
"""As shells have it: 128 and the number of the signal."""


def run(command: LazyCommand, arguments: Mapping[str, Any], *, debug: bool) -> None:
    """Run a command's work; if that fails, print the error and exit with its status."""
    start_logging(debug)
    try:
        command.load_work()(**arguments)
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click handles these
    except KeyboardInterrupt:
        click.echo(f"Interrupted. {command.interrupted}".rstrip(), err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        print_error(error)
        sys.exit(exit_status(error))


def exit_status(error: Exception) -> int:
    """Return the exit status that an error stands for."""
    return WRONG_USE if isinstance(error, UsageError | ModelError | DeviceError) else FAILED


class _AboveProgressBars(logging.StreamHandler):
    """Log to stderr without breaking the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(in_command_words(scrub(self.format(record))), file=sys.stderr)


def start_logging(debug: bool) -> None:
    """Log warnings to stderr, with `debug` everything."""
    handler = _AboveProgressBars()
    pattern = "%(levelname)s %(name)s: %(message)s" if debug else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler], force=True)
    # GDAL's remarks on a file's tags are for developers; what matters in them has a note of its own.
    logging.getLogger("rasterio").setLevel(logging.DEBUG if debug else logging.CRITICAL)
