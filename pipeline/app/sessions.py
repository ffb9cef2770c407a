"""Sessions: one for each browser, recognised by a random cookie, with files that no other session can see."""

import logging
import secrets
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

EXPIRE_AFTER = 2 * 3600.0
"""Seconds without a request after which a session ends."""

MAX_SESSIONS = 200

MAX_SCENES = 3
"""Scenes of one session: enough to compare two while a third one is uploaded."""


class StoredScene(Protocol):
    """What a session needs to know about its scenes."""

    @property
    def busy(self) -> bool:
        """Return whether it is being classified or is queued for it."""

    def close(self) -> None:
        """Cancel its run and remove its files."""


@dataclass
class Session:
    """One browser's session."""

    token: str
    """The cookie's value: a secret."""

    folder: Path
    """Holds all files of the session."""

    scenes: OrderedDict[str, StoredScene] = field(default_factory=OrderedDict)
    """By key, the oldest first."""

    last_seen: float = field(default_factory=time.monotonic)
    """When the last request came, by time.monotonic."""

    @property
    def busy(self) -> bool:
        """Return whether any of its scenes is being classified or queued."""
        return any(scene.busy for scene in self.scenes.values())

    def add_scene(self, key: str, scene: StoredScene) -> None:
        """Add a scene; if there are too many, the oldest one that is not busy is removed."""
        self.scenes[key] = scene
        while len(self.scenes) > MAX_SCENES:
            oldest = next((k for k, s in self.scenes.items() if not s.busy), next(iter(self.scenes)))
            self.scenes.pop(oldest).close()

    def close(self) -> None:
        """Cancel its runs and remove its files."""
        for scene in self.scenes.values():
            scene.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All sessions. Not thread-safe: use it from the event loop only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: dict[str, Session] = {}

    def find(self, token: str | None) -> Session | None:
        """Return the session with this cookie, if there is one, and note that it was seen."""
        session = self._sessions.get(token or "")
        if session:
            session.last_seen = time.monotonic()
        return session

    def create(self) -> Session:
        """Return a new session; if there are too many, the least recently seen idle one is removed."""
        if len(self._sessions) >= MAX_SESSIONS:
            self._remove(min(self._sessions.values(), key=lambda session: (session.busy, session.last_seen)))
        token = secrets.token_urlsafe(32)
        # Not the token: a folder's name may show up in messages.
        session = Session(token, self._folder / secrets.token_hex(8))
        session.folder.mkdir()
        self._sessions[token] = session
        return session

    def remove_expired(self) -> None:
        """Remove sessions that were not seen for `EXPIRE_AFTER` seconds and are not busy."""
        oldest = time.monotonic() - EXPIRE_AFTER
        for session in list(self._sessions.values()):
            if session.last_seen < oldest and not session.busy:
                self._remove(session)

    def close(self) -> None:
        """Remove all sessions and their files."""
        for session in list(self._sessions.values()):
            self._remove(session)

    def _remove(self, session: Session) -> None:
        del self._sessions[session.token]
        session.close()
        log.info("Removed a session and its files.")
