"""Which scenes a batch finds, and that no two of them write the same files."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch.inputs import SceneInput, find_scenes
from pipeline.errors import UsageError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(*sources: object, output: str = "/nowhere") -> dict[str, str]:
    """Return the scenes that are found, as {path: folder/name}."""
    scenes = find_scenes([str(source) for source in sources], Path(output))
    return {scene.path: f"{scene.folder.as_posix()}/{scene.name}" for scene in scenes}


def below(folder: Path, *sources: object) -> dict[str, str]:
    """Return the same with paths relative to the folder."""
    scenes = found(*(sources or (folder,)))
    return {str(Path(path).relative_to(folder)): place for path, place in scenes.items()}


def test_a_folder_is_searched_and_mirrored(tmp_path):
    touch(tmp_path, "a.tif", "2023/b.TIF", "2023/05/a.jp2", "2024/c.vrt", "notes.pdf", "2023/b.tif.aux.xml")
    assert below(tmp_path) == {
        "a.tif": "./a",
        "2023/b.TIF": "2023/b",
        "2023/05/a.jp2": "2023/05/a",
        "2024/c.vrt": "2024/c",
    }


def test_hidden_files_and_outputs_are_not_scenes(tmp_path):
    touch(tmp_path, "a.tif", "a_landcover.tif", "a_confidence.tif", "a_probabilities.tif")
    touch(tmp_path, ".a.12345678.part/a_landcover.tif", ".hidden.tif", "a.tif.ovr", "a.tif.msk", "a.png")
    touch(tmp_path, "maps/b.tif")
    assert found(tmp_path, output=str(tmp_path / "maps")) == {str(tmp_path / "a.tif"): "./a"}


def test_maps_may_lie_among_the_scenes(tmp_path):
    touch(tmp_path, "a.tif", "a_landcover.tif")
    assert found(tmp_path, output=str(tmp_path)) == {str(tmp_path / "a.tif"): "./a"}


def test_a_product_is_one_scene_whether_unpacked_or_zipped(tmp_path):
    product = "S2A_MSIL1C_20230601"
    touch(tmp_path, f"x/{product}.SAFE/MTD_MSIL1C.xml", f"x/{product}.SAFE/GRANULE/L1C/IMG_DATA/T_B02.jp2")
    touch(tmp_path, "y/renamed/MTD_MSIL2A.xml", "y/renamed/GRANULE/L2A/IMG_DATA/T_B02.jp2")
    touch(tmp_path, "broken.SAFE/GRANULE/L1C/IMG_DATA/T_B02.jp2")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("S2B_MSIL1C_20240101.SAFE/MTD_MSIL1C.xml", "")
    with zipfile.ZipFile(tmp_path / "papers.zip", "w") as archive:
        archive.writestr("paper.pdf", "")
    (tmp_path / "cut_off.SAFE.zip").write_bytes(b"PK")
    assert below(tmp_path) == {
        f"x/{product}.SAFE": f"x/{product}",
        "y/renamed": "y/renamed",
        "broken.SAFE": "./broken",
        "z.zip": "./S2B_MSIL1C_20240101",
        "cut_off.SAFE.zip": "./cut_off.SAFE",
    }


def test_a_set_of_band_files_is_one_scene_beside_others(tmp_path):
    touch(tmp_path, *(f"d/T33_2023_B0{i}.tif" for i in (2, 3, 4)), "d/T33_2023_SCL.tif", "d/other.tif")
    touch(tmp_path, "e/B02.tif", "e/B03.tif", "e/B04.tif", "f/x_B02.tif", "f/x_B03.tif")
    assert below(tmp_path) == {
        "d": "d/T33_2023",
        "d/other.tif": "d/other",
        "e": "e/e",
        "f/x_B02.tif": "f/x_B02",
        "f/x_B03.tif": "f/x_B03",
    }


def test_scenes_that_would_write_the_same_files_get_a_folder_each(tmp_path, caplog):
    touch(tmp_path, "a.tif", "a.jp2", "A.TIF", "b.tif")
    assert below(tmp_path, tmp_path) | {"A.TIF": "", "a.tif": ""} == {
        "a.jp2": "a.jp2/a",
        "a.tif": "",
        "A.TIF": "",
        "b.tif": "./b",
    }
    places = below(tmp_path)
    assert places["a.tif"].startswith("a.tif-")  # separate even if the disk ignores case
    assert places["A.TIF"].startswith("A.TIF-")
    assert "a.jp2" in caplog.text


def test_a_folder_that_cannot_be_entered_or_listed_is_left_out_alone(open_folder, caplog):
    touch(open_folder, "a.tif", "listed/b.tif", "closed/c.tif", "z/d.tif")
    (open_folder / "listed").chmod(0o444)
    (open_folder / "closed").chmod(0)
    assert list(below(open_folder)) == ["a.tif", "z/d.tif"]
    for name in ("listed", "closed"):
        assert f"{name} is left out, since it could not be searched: Permission denied" in caplog.text
    assert [Path(path).name for path in found(open_folder / "*")] == ["a.tif"]


def test_paths_that_cannot_be_looked_at_are_kept_to_fail_alone(open_folder, monkeypatch):
    touch(open_folder, "a.tif", "listed/b.tif")
    (open_folder / "listed").chmod(0o444)
    long = open_folder / ("x" * 270) / "c.tif"
    address = f"https://host.org/{'y' * 270}/{'z' * 270}.tif"
    (open_folder / "list.txt").write_text(f"a.tif\nlisted/b.tif\n{long}\n{address}\n")
    monkeypatch.chdir(open_folder)
    scenes = find_scenes(["list.txt"], Path("/nowhere"))
    assert [scene.path for scene in scenes] == [
        *(str(open_folder / name) for name in ("a.tif", "listed/b.tif")),
        str(long),
        address,
    ]
    assert max(len(part) for part in (*scenes[3].folder.parts, scenes[3].name)) <= 120


def test_own_outputs_under_any_name_are_no_scenes(tmp_path, write_raster):
    touch(tmp_path, "a.tif", "all.tif", "all.vrt", "all_confidence.vrt", "all_mosaic.json", "allotment.tif")
    write_raster(np.ones((1, 9, 9), np.uint8), "renamed.tif", tags={"model_digest": "abc"})
    assert list(below(tmp_path)) == ["a.tif", "allotment.tif"]
    assert list(below(tmp_path, tmp_path / "*.tif")) == ["a.tif", "allotment.tif"]


def test_hosts_and_ports_are_told_apart():
    places = found("http://host:8765/a/b.tif", "http://host:80/a/b.tif", "http://al:pw@host/a/b.tif")
    assert list(places.values()) == ["host_8765/a/b", "host_80/a/b", "host/a/b"]


def test_a_pattern(tmp_path):
    touch(tmp_path, "x/a.tif", "x/a.txt", "y/deep/b.tif", "y/b_landcover.tif")
    assert below(tmp_path, tmp_path / "**/*.tif") == {"x/a.tif": "x/a", "y/deep/b.tif": "y/deep/b"}
    assert below(tmp_path, tmp_path / "[xy]") == {"x/a.tif": "x/a", "y/deep/b.tif": "y/deep/b"}
    touch(tmp_path, "odd[1].tif")
    assert below(tmp_path, tmp_path / "odd[1].tif") == {"odd[1].tif": "./odd[1]"}


def test_a_list_of_paths_and_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "in/2023/a.tif", "in/2024/a.tif", "in/folder/deep/c.tif")
    with zipfile.ZipFile(tmp_path / "in/2024/box.zip", "w") as archive:
        archive.writestr("inside/d.tif", "")
    (tmp_path / "list.txt").write_text(
        "\ufeff# scenes\n\nin/2023/a.tif\nin/2024/a.tif\nin/2024/gone.tif\nin/folder\n"
        "in/2024/box.zip/inside/d.tif\nin/2023/a.tif\n"
        "https://host.org/data/b.tif?sig=SECRET\ns3://bucket/x/b.tif\n/vsicurl/https://host.org/e.tif\n",
        encoding="utf-8",
    )
    base = tmp_path / "in"
    assert found("list.txt") == {
        f"{base}/2023/a.tif": "2023/a",
        f"{base}/2024/a.tif": "2024/a",
        f"{base}/2024/gone.tif": "2024/gone",
        f"{base}/folder/deep/c.tif": "folder/deep/c",
        f"/vsizip/{{{base}/2024/box.zip}}/inside/d.tif": "2024/box.zip/inside/d",
        "https://host.org/data/b.tif?sig=SECRET": "host.org/data/b",
        "s3://bucket/x/b.tif": "bucket/x/b",
        "/vsicurl/https://host.org/e.tif": "host.org/e",
    }


def test_circular_links_end(tmp_path):
    touch(tmp_path, "real/a.tif")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert list(below(tmp_path)) == ["real/a.tif"]


def test_a_mask_among_the_scenes_is_not_a_scene(tmp_path):
    touch(tmp_path, "a.tif", "mask.tif")
    (scene,) = find_scenes([str(tmp_path)], Path("/nowhere"), leave_out=[str(tmp_path / "mask.tif")])
    assert scene == SceneInput(str(tmp_path / "a.tif"), "a", Path())


@pytest.mark.parametrize("source", ["absent", "absent/*.tif", "empty", "empty.txt"])
def test_finding_no_scene_is_a_usage_error(tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"absent|empty"):
        find_scenes([str(tmp_path / source)], tmp_path / "out")


PARTS = st.sampled_from(["a", "A", "b", "a.tif", "b-1"])
ADDRESSES = st.builds(
    "https://{}/{}.{}?{}".format,
    st.lists(PARTS, min_size=1, max_size=3).map("/".join),
    PARTS,
    st.sampled_from(["tif", "TIF", "jp2"]),
    st.sampled_from(["", "x", "y"]),
)


@given(st.lists(ADDRESSES, min_size=1, max_size=12, unique=True))
def test_no_two_scenes_write_the_same_files(addresses):
    scenes = find_scenes(addresses, Path("/nowhere"))
    assert {scene.path for scene in scenes} == set(addresses)
    places = [f"{scene.folder}/{scene.name}".casefold() for scene in scenes]
    assert len(set(places)) == len(places)
    assert not any(scene.folder.is_absolute() or ".." in scene.folder.parts for scene in scenes)
