"""Files appear complete or not at all, and errors say why."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import OutputError
from pipeline.files import leftovers, make_folder, publish, staging_folder, write_file, write_files
from pipeline.maps.areas import write_areas
from pipeline.maps.cog import write_confidence, write_landcover, write_names, write_probabilities
from pipeline.maps.landcover_map import LandcoverMap
from pipeline.maps.polygons import write_polygons
from pipeline.maps.preview import write_preview
from pipeline.maps.style import write_style
from tests.support.maps import CLASSES, make_map

WRITERS: dict[str, Callable[[LandcoverMap, Path], None]] = {
    "landcover.tif": write_landcover,
    "landcover.tif.aux.xml": write_names,
    "confidence.tif": write_confidence,
    "probabilities.tif": write_probabilities,
    "landcover.geojson": lambda landcover, path: write_polygons(landcover, path, "geojson"),
    "landcover.gpkg": lambda landcover, path: write_polygons(landcover, path, "gpkg"),
    "landcover.fgb": lambda landcover, path: write_polygons(landcover, path, "fgb"),
    "landcover.parquet": lambda landcover, path: write_polygons(landcover, path, "parquet"),
    "landcover.qml": lambda _, path: write_style(CLASSES, path),
    "areas.csv": write_areas,
    "preview.png": write_preview,
}
every_writer = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture
def landcover() -> LandcoverMap:
    return make_map(np.random.default_rng(4).integers(0, 4, (20, 20)))


@contextmanager
def full_disk() -> Iterator[None]:
    """Let files of this process grow to 64 bytes only: writes then fail half-way, as on a full disk."""
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@every_writer
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, landcover: LandcoverMap, name: str
) -> None:
    path = tmp_path / name
    path.write_text("earlier")

    remedy = r"free some space or choose another folder with `output`\.$"
    with full_disk(), pytest.raises(OutputError, match=remedy):
        WRITERS[name](landcover, path)

    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@every_writer
def test_a_missing_folder_is_reported_in_one_sentence(
    tmp_path: Path, landcover: LandcoverMap, name: str
) -> None:
    with pytest.raises(OutputError, match=r"no such file .*\): choose another folder with `output`\.$"):
        WRITERS[name](landcover, tmp_path / "absent" / name)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root, and anyone on Windows, may write into read-only folders",
)
@every_writer
def test_a_read_only_folder_is_reported_in_one_sentence(
    tmp_path: Path, landcover: LandcoverMap, name: str
) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied"):
        WRITERS[name](landcover, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):  # one that is there is fine
        make_folder(tmp_path / "a" / "b")
        assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"written \(.*\): choose another folder with `output`\.$"):
        make_folder(tmp_path / "file" / "folder")


def test_a_file_replaces_the_earlier_one_and_has_the_usual_permissions(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"earlier")
    plain.touch()

    write_file(path, b"new")

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == plain.stat().st_mode


def test_if_one_of_several_files_fails_none_appears(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_files({tmp_path / "a": b"1", tmp_path / "absent" / "b": b"2"})

    assert list(tmp_path.iterdir()) == []


def test_publishing_removes_stale_files_and_moves_the_last_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("done", "stale", "kept"):
        (tmp_path / name).write_text("old")
    moved = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        assert not (tmp_path / "done").exists()
        moved.append(path.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    with staging_folder(tmp_path, "result") as staging:
        for name in ("done", "zebra", "ant"):
            (staging / name).write_text("new")
        assert leftovers(tmp_path, "result") == leftovers(tmp_path) == [staging]
        assert leftovers(tmp_path, "another") == []
        publish(staging, tmp_path, last="done", stale=["stale", "absent"])

    assert moved == ["ant", "zebra", "done"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "ant": "new",
        "done": "new",
        "kept": "old",
        "zebra": "new",
    }


def test_an_error_in_the_staging_folder_names_the_folder_that_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, staging_folder(tmp_path, "result") as staging:
        write_file(staging / "absent" / "a", b"1")

    assert str(tmp_path / "absent" / "a") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a", b"1")

    assert list(tmp_path.iterdir()) == []
