"""Model bundles on disk: finding them, reading and rewriting their cards. No torch here.

A bundle is a folder with a `card.json` (see `pipeline.model.card`) and a `model.safetensors` (see
`pipeline.model.weights`): all that `classify` needs.
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.files import write_files
from pipeline.model.card import ModelCard

WEIGHTS = "model.safetensors"
CARD = "card.json"


@dataclass(frozen=True)
class Bundle:
    """A model on disk."""

    card: ModelCard
    """What the network was trained on and what it gives."""

    path: Path
    """The folder with the card and the weights."""


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Find a shipped bundle by its name, or any bundle by its folder, and read its card.

    Raises:
        ModelError: there is no such bundle (the message lists the shipped ones), or its card is damaged.
    """
    candidates = [Path(name_or_path)]
    if len(candidates[0].parts) == 1:
        candidates.append(shipped_models() / name_or_path)
    for path in candidates:
        if (path / CARD).is_file():
            return Bundle(_read_card(path / CARD), path)
    shipped = ", ".join(list_bundles()) or "none"
    raise ModelError(
        f"No model '{name_or_path}': it is neither a folder with a {CARD} "
        f"nor one of the shipped models ({shipped})."
    )


def _read_card(path: Path) -> ModelCard:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from error
    try:
        return ModelCard.from_json(document)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def rewrite_card(bundle: Bundle, **changes: Any) -> Bundle:
    """Change fields of a saved bundle's card, such as its metrics, without touching the weights."""
    write_files({bundle.path / CARD: card_bytes(replace(bundle.card, **changes))})
    return load_bundle(bundle.path)


def card_bytes(card: ModelCard) -> bytes:
    """Return the content of a `card.json`."""
    return (json.dumps(card.to_json(), indent=2) + "\n").encode("utf-8")


def list_bundles() -> list[str]:
    """Return the names of the shipped bundles, in alphabetical order."""
    return sorted(card.parent.name for card in shipped_models().glob(f"*/{CARD}"))


def shipped_models() -> Path:
    """Return the folder of the shipped bundles: inside an installed package, else `models/` beside it.

    The environment variable LANDCOVER_MODELS names another one.
    """
    if override := os.environ.get("LANDCOVER_MODELS"):
        return Path(override)
    package = Path(__file__).resolve().parents[1]
    # In this order: a folder `models` beside an installed package may be something else.
    packaged = package / "_models"
    return packaged if packaged.is_dir() else package.parent / "models"


def digest_of(path: Path) -> str:
    """Return the file's digest as `sha256:<hex>`."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
