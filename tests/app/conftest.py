"""One running app with a served folder, shared by all tests of the app, and browsers that use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rasterio
import rasterio.shutil

from pipeline.classify import classify_scene
from pipeline.options import ClassifyOptions
from pipeline.scenes.synthetic import write_scene

if TYPE_CHECKING:
    from tests.support.app_server import Browser


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("made") / "made 1.tif", size=448)


@pytest.fixture(scope="session")
def root(tmp_path_factory, scene, light_predictor) -> Path:
    """Return a folder to serve: a scene, its map, a batch's report, and links that lead out of it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.csv").write_text("secret")
    write_scene(outside / "elsewhere.tif", size=128)
    folder = tmp_path_factory.mktemp("root")
    (folder / "made.tif").write_bytes(scene.read_bytes())
    (folder / ".hidden.csv").write_text("hidden")
    (folder / "notes.txt").write_text("not part of a map")
    (folder / "link.csv").symlink_to(outside / "secret.csv")
    (folder / "linked").symlink_to(outside)
    with rasterio.open(outside / "elsewhere.tif") as dataset:
        rasterio.shutil.copy(dataset, folder / "points-out.vrt", driver="VRT")
    maps = folder / "maps"
    classify_scene(str(folder / "made.tif"), maps, light_predictor, ClassifyOptions(stride=32))
    (maps / "batch_report.html").write_text("<script>alert(1)</script><h1>Report</h1>")
    return folder


@pytest.fixture(scope="session")
def address(root) -> Iterator[str]:
    # Imported here, since it skips the test where the extra [app] is not installed.
    from tests.support.app_server import running_app

    with running_app(root) as address:
        yield address


@pytest.fixture
def browser(address) -> "Browser":
    from tests.support.app_server import Browser

    return Browser(address)
