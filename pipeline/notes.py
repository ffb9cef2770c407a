"""What was found out or assumed about a scene, in sentences for `info`, warnings and `run.json`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Note:
    """One sentence; a `warning` where something was guessed or will cost quality, else `info`."""

    level: Literal["info", "warning"]
    text: str


def info(text: str) -> Note:
    """Return a note that states a fact."""
    return Note("info", text)


def warning(text: str) -> Note:
    """Return a note that the user should read before trusting the map."""
    return Note("warning", text)
