"""A bundle on disk to read and to break."""

import shutil
from pathlib import Path

import pytest

from pipeline.model.weights import save_bundle
from tests.support.cards import FULL_CARD
from tests.support.networks import network_of


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """Return the folder of a bundle that no test may change."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_bundle(network_of(FULL_CARD), FULL_CARD, folder)
    return folder


@pytest.fixture
def bundle_folder(saved, tmp_path) -> Path:
    """Return the folder of a bundle to break."""
    return shutil.copytree(saved, tmp_path / "tiny")
