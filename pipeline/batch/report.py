"""The report of a batch: how each scene ended, as JSON and as a single HTML page."""

import base64
import io
import json
import logging
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from PIL import Image

from pipeline.addresses import is_there, shown
from pipeline.batch.inputs import SceneInput
from pipeline.batch.messages import DONE, FAILED, INTERRUPTED, SKIPPED, Outcome, Ready
from pipeline.files import write_files

log = logging.getLogger(__name__)

JSON_NAME, HTML_NAME, LOGS = "batch_report.json", "batch_report.html", "logs"
TEMPLATE = "report.html.jinja"

MAX_PICTURES = 500  # keeps the page at about 5 MB; further scenes are listed without a picture
PICTURE_SIDE = 160  # pixels


@dataclass
class Report:
    """What is known of a batch, collected while it runs."""

    output: Path
    """The batch's output folder."""

    scenes: list[SceneInput]
    """All scenes of the batch, in order."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """How scenes ended, by their position in `scenes`."""

    model: dict[str, Any] | None = None
    """The model's name, digest and classes; None until a worker has loaded it."""

    device: str = ""
    """The device that the workers compute on."""

    memory: int = 0
    """Bytes: the largest peak memory of a worker; 0 if unknown."""

    signal: int = 0
    """The number of the signal that ended the batch; 0 for none."""

    seconds: float = 0.0
    """How long the batch took."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    """When the batch started, in UTC."""

    _began: float = field(default_factory=time.monotonic)

    def add(self, event: object) -> None:
        """Add what an event says of the batch; most say nothing."""
        if isinstance(event, Ready):
            self.model, self.device = event.model, event.device
        elif isinstance(event, Outcome):
            self.outcomes[event.index] = event
            self.memory = max(self.memory, event.memory or 0)

    def close(self, signal: int) -> None:
        """End the report: scenes without an outcome count as interrupted."""
        self.signal = signal
        self.seconds = time.monotonic() - self._began
        for index in range(len(self.scenes)):
            self.outcomes.setdefault(index, Outcome(index, INTERRUPTED, "not finished when the batch ended"))

    def count(self, status: str) -> int:
        """Return how many scenes have this status."""
        return sum(outcome.status == status for outcome in self.outcomes.values())

    @property
    def tiles(self) -> int:
        """How many tiles were classified in this run."""
        return sum(outcome.tiles for outcome in self.outcomes.values() if outcome.status == DONE)

    def areas(self) -> list[dict[str, Any]]:
        """Return each class's area in all maps, also those of earlier runs, in the order of the class ids."""
        hectares: Counter[int] = Counter()
        for outcome in self.outcomes.values():
            for area in outcome.areas:
                hectares[area["class_id"]] += area["hectares"]
        classified = sum(hectares.values()) - hectares[0]
        return [
            {
                "class_id": entry["id"],
                "class_name": entry["name"],
                "color": entry["color"],
                "hectares": hectares[entry["id"]],
                "share_percent": 100 * hectares[entry["id"]] / classified if classified else 0.0,
            }
            for entry in (self.model or {"classes": []})["classes"]
        ]

    def log_of(self, index: int) -> Path:
        """Return the path of a scene's log."""
        scene = self.scenes[index]
        return self.output / LOGS / scene.folder / f"{scene.name}.log"


def write_report(report: Report) -> None:
    """Write `batch_report.json` and `batch_report.html` into the batch's output folder.

    Raises:
        OutputError: they cannot be written.
    """
    write_files(
        {
            report.output / HTML_NAME: _page(report).encode("utf-8", "backslashreplace"),
            report.output / JSON_NAME: (json.dumps(as_json(report), indent=2) + "\n").encode("utf-8"),
        }
    )


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values; paths of outputs are relative to the output folder."""
    assert report.model is not None
    return {
        "output": str(report.output),
        "model": {key: report.model[key] for key in ("name", "digest")},
        "started": report.started.isoformat(),
        "seconds": round(report.seconds, 3),
        "ended_by_signal": report.signal or None,
        "worker_memory_mib": round(report.memory / 2**20) or None,
        "counts": {status: report.count(status) for status in (DONE, SKIPPED, FAILED, INTERRUPTED)},
        "tiles": report.tiles,
        "areas": [{key: value for key, value in area.items() if key != "color"} for area in report.areas()],
        "scenes": [_scene_as_json(report, outcome) for _, outcome in sorted(report.outcomes.items())],
    }


def _scene_as_json(report: Report, outcome: Outcome) -> dict[str, Any]:
    scene = report.scenes[outcome.index]
    return {
        "scene": shown(scene.path),
        "status": outcome.status,
        "reason": outcome.reason or None,
        "seconds": round(outcome.seconds, 3),
        "tiles": outcome.tiles,
        "output": scene.folder.as_posix(),
        "files": {kind: _relative(path, report.output) for kind, path in outcome.files.items()},
        "areas": [area for area in outcome.areas if area["hectares"] > 0],
        "warnings": list(outcome.warnings),
    }


def _relative(path: str | Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _link(path: str | Path, folder: Path) -> str:
    return quote(os.fsencode(_relative(path, folder)))


def _page(report: Report) -> str:
    """Return the HTML page; the template escapes all text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert report.model is not None
    colors = {entry["id"]: entry["color"] for entry in report.model["classes"]}
    mapped = [o for _, o in sorted(report.outcomes.items()) if o.status in (DONE, SKIPPED)]
    unfinished = [o for _, o in sorted(report.outcomes.items()) if o.status in (FAILED, INTERRUPTED)]
    areas = sorted(report.areas(), key=lambda area: area["hectares"], reverse=True)
    return environment.get_template(TEMPLATE).render(
        report=report,
        areas=[area for area in areas if area["hectares"] > 0],
        counts={status: report.count(status) for status in (FAILED, INTERRUPTED, DONE, SKIPPED)},
        hectares=sum(area["hectares"] for area in areas),
        duration=duration(report.seconds),
        unfinished=[_card(report, outcome) for outcome in unfinished],
        mapped=[
            _card(report, outcome, picture=i < MAX_PICTURES, colors=colors)
            for i, outcome in enumerate(mapped)
        ],
        pictures=MAX_PICTURES,
    )


def _card(
    report: Report, outcome: Outcome, picture: bool = False, colors: dict[int, str] | None = None
) -> dict[str, Any]:
    """Return what the page shows of a scene, for the template."""
    scene = report.scenes[outcome.index]
    log_file = report.log_of(outcome.index)
    bar = [
        {"color": colors[area["class_id"]], "percent": area["share_percent"], "name": area["class_name"]}
        for area in outcome.areas
        if colors and area["share_percent"]
    ]
    return {
        "name": outcome.name or scene.name,
        "path": shown(scene.path),
        "folder": "" if scene.folder.as_posix() == "." else scene.folder.as_posix(),
        "status": outcome.status,
        "reason": outcome.reason,
        "tiles": outcome.tiles,
        "duration": duration(outcome.seconds),
        "warnings": outcome.warnings,
        "log": _link(log_file, report.output) if is_there(str(log_file)) else "",
        "map": _link(outcome.files["landcover"], report.output) if outcome.files else "",
        "picture": _picture(Path(outcome.files["landcover"])) if picture and outcome.files else "",
        "bar": bar,
    }


def _picture(path: Path) -> str:
    """Return a map as a data URL of a small PNG in the map's colors; "" if the map cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.NEAREST, reducing_gap=None)
            memory = io.BytesIO()
            image.save(memory, "PNG", optimize=True, transparency=0)
    except (OSError, ValueError) as error:  # the map may have been removed meanwhile
        log.debug("No picture of %s: %s", path, error)
        return ""
    return "data:image/png;base64," + base64.b64encode(memory.getvalue()).decode("ascii")


def duration(seconds: float) -> str:
    """Return a duration for people to read: 4.2 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
