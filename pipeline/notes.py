"""What was found or assumed, in sentences for `info`, warnings and `run.json`, each with a code for programs.

A sentence names an option by its name in `pipeline.options`, in backticks. Whoever shows the sentence puts
that into words of its own: the command writes `min_confidence` as --min-confidence.
"""

import logging
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Note:
    """One finding."""

    level: Literal["info", "warning"]
    """`warning` where something was guessed or will cost quality."""

    code: str
    """What was found, for programs: it stays the same when the sentence is worded anew."""

    option: str | None
    """The option that was obeyed, or that overrules what was found."""

    text: str
    """One sentence."""


def info(code: str, option: str | None, text: str) -> Note:
    """Return a note that states a fact."""
    return Note("info", code, option, text)


def warning(code: str, option: str | None, text: str) -> Note:
    """Return a note that the user should read before trusting the map."""
    return Note("warning", code, option, text)


def log_note(log: logging.Logger, subject: str, note: Note) -> None:
    """Log a note about the scene or file `subject` at the note's level."""
    log.log(logging.WARNING if note.level == "warning" else logging.INFO, "%s: %s", subject, note.text)
