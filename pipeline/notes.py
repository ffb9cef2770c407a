"""Notes: what was found or assumed, as a sentence for people and a code for programs.

They are shown by `info`, logged as warnings and kept in `run.json`. A sentence names an option by its name
in `pipeline.options`, in backticks; what shows it may use other names: the command turns `min_confidence`
into --min-confidence.
"""

import logging
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Note:
    """One finding."""

    level: Literal["info", "warning"]
    """`warning` if something was guessed or will make the map worse."""

    code: str
    """What was found, for programs: it stays the same when the sentence is reworded."""

    option: str | None
    """The option that was followed, or that overrides what was found."""

    text: str
    """One sentence for people."""


def info(code: str, option: str | None, text: str) -> Note:
    """Return a note that states a fact."""
    return Note("info", code, option, text)


def warning(code: str, option: str | None, text: str) -> Note:
    """Return a note that the user should read before trusting the map."""
    return Note("warning", code, option, text)


def log_note(log: logging.Logger, subject: str, note: Note) -> None:
    """Log a note about the scene or file `subject` at the note's level."""
    log.log(logging.WARNING if note.level == "warning" else logging.INFO, "%s: %s", subject, note.text)
