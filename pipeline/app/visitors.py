"""Visitors, told apart by a random cookie, and what each of them has here: nobody sees another's."""

import logging
import secrets
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

EXPIRE_AFTER = 2 * 3600.0  # seconds without a sign of life
MAX_VISITORS = 200
KEPT = 3  # scenes of one visitor: enough to compare two, while a third one comes


class Belonging(Protocol):
    """A scene of a visitor's."""

    @property
    def busy(self) -> bool:
        """Tell whether it is being classified, or waits for it."""

    def close(self) -> None:
        """End what is going on with it, and remove its files."""


@dataclass
class Visitor:
    """One browser. `folder` holds all of its files; `seen` is by time.monotonic."""

    token: str
    folder: Path
    scenes: OrderedDict[str, Belonging] = field(default_factory=OrderedDict)
    seen: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        """Tell whether anything of theirs is going on."""
        return any(scene.busy for scene in self.scenes.values())

    def keep(self, key: str, scene: Belonging) -> None:
        """Add a scene; the oldest one goes if there are too many."""
        self.scenes[key] = scene
        while len(self.scenes) > KEPT:
            idle = next((k for k, s in self.scenes.items() if not s.busy), next(iter(self.scenes)))
            self.scenes.pop(idle).close()

    def leave(self) -> None:
        """Remove all that they had."""
        for scene in self.scenes.values():
            scene.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """All visitors. To be used from the event loop alone."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._visitors: dict[str, Visitor] = {}

    def find(self, token: str | None) -> Visitor | None:
        """Return the visitor with this cookie, who thereby gives a sign of life."""
        visitor = self._visitors.get(token or "")
        if visitor:
            visitor.seen = time.monotonic()
        return visitor

    def welcome(self) -> Visitor:
        """Return a new visitor."""
        if len(self._visitors) >= MAX_VISITORS:
            self._remove(min(self._visitors.values(), key=lambda visitor: (visitor.busy, visitor.seen)))
        token = secrets.token_urlsafe(32)
        # The folder's name is no secret, the token is.
        visitor = Visitor(token, self._folder / secrets.token_hex(8))
        visitor.folder.mkdir()
        self._visitors[token] = visitor
        return visitor

    def sweep(self) -> None:
        """Remove visitors who have not been seen for long and wait for nothing."""
        longest_ago = time.monotonic() - EXPIRE_AFTER
        for visitor in list(self._visitors.values()):
            if visitor.seen < longest_ago and not visitor.busy:
                self._remove(visitor)

    def close(self) -> None:
        """Remove everybody's files."""
        for visitor in list(self._visitors.values()):
            self._remove(visitor)

    def _remove(self, visitor: Visitor) -> None:
        del self._visitors[visitor.token]
        visitor.leave()
        log.info("A visitor's files were removed.")
