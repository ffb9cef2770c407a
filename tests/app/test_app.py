"""The app's server, asked without a browser: what it answers, and what it refuses."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from PIL import Image

import cli
from pipeline.app.examples import example_files
from pipeline.app.visitors import EXPIRE_AFTER, KEPT, Visitors
from pipeline.classify import classify_scene
from pipeline.options import ClassifyOptions
from pipeline.scenes.synthetic import write_scene
from tests.support.app_server import LIGHT, Visitor, httpx, running_app, wait_until


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("made") / "made 1.tif", size=448)


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene, light_predictor) -> Path:
    """Return a folder to serve: a scene, its map, a batch's report, and ways out of it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.csv").write_text("secret")
    write_scene(outside / "elsewhere.tif", size=128)
    folder = tmp_path_factory.mktemp("root")
    (folder / "made.tif").write_bytes(scene.read_bytes())
    (folder / ".hidden.csv").write_text("hidden")
    (folder / "notes.txt").write_text("not a map's")
    (folder / "link.csv").symlink_to(outside / "secret.csv")
    (folder / "linked").symlink_to(outside)
    with rasterio.open(outside / "elsewhere.tif") as dataset:
        rasterio.shutil.copy(dataset, folder / "points-out.vrt", driver="VRT")
    maps = folder / "maps"
    classify_scene(str(folder / "made.tif"), maps, light_predictor, ClassifyOptions(stride=32))
    (maps / "batch_report.html").write_text("<script>alert(1)</script><h1>Report</h1>")
    return folder


@pytest.fixture(scope="module")
def address(root):
    with running_app(root, max_upload=8 * 2**20) as address:
        yield address


@pytest.fixture
def visitor(address) -> Visitor:
    return Visitor(address)


def picture(width: int = 64, height: int = 64, mode: str = "RGB", kind: str = "PNG") -> bytes:
    values = np.random.default_rng(0).integers(60, 130, (height, width, len(mode)), np.uint8)
    memory = io.BytesIO()
    Image.fromarray(values.squeeze(), mode if len(mode) != 1 else None).save(memory, kind)
    return memory.getvalue()


def classify_image(visitor: Visitor, content: bytes, name: str = "a.png", status: int = 200, **wishes):
    return visitor.ask(
        "POST",
        "/api/image",
        status,
        params={"name": name, "wishes": json.dumps(wishes)},
        content=content,
    )


# Who may ask


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "localhost.evil.example"])
def test_another_name_for_this_machine_is_refused(address, host):
    """DNS rebinding: a site whose name suddenly means 127.0.0.1."""
    assert httpx.get(address, headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "192.168.1.7", "[::1]"])
def test_numbers_and_this_machines_own_name_are_not(address, name):
    port = address.rpartition(":")[2]
    assert httpx.get(address, headers={"Host": f"{name}:{port}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_another_sites_page_cannot_change_anything(visitor, headers):
    visitor.ask("POST", "/api/scenes", 403, json={}, headers=headers)


def test_the_page_itself_can(visitor, address):
    visitor.ask("POST", "/api/scenes", json={}, headers={"Origin": address, "Sec-Fetch-Site": "same-origin"})


def test_every_answer_forbids_what_comes_from_elsewhere(address):
    for path in ("/", "/static/main.js", "/api/state", "/nothing"):
        headers = httpx.get(address + path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_without_a_visit_nothing_can_be_asked(address):
    answer = httpx.post(address + "/api/scenes", json={})
    assert answer.status_code == 401
    assert "load the page again" in answer.json()["error"]


def test_the_page_names_no_other_address():
    static = Path(__file__).parents[2] / "pipeline" / "app" / "static"
    for file in (*static.glob("*.js"), *static.glob("*.css"), *static.glob("*.html")):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file
        assert "https://" not in text, file


# An image


def test_the_examples_that_ship_are_what_their_names_say(visitor):
    named = {file.stem: classify_image(visitor, file.read_bytes(), file.name) for file in example_files()}
    assert {name: answer["class"] for name, answer in named.items()} == {name: name for name in named}
    for answer in named.values():
        assert answer["certainty"] in ("sure", "fair", "unsure")
        assert sum(entry["probability"] for entry in answer["probabilities"]) == pytest.approx(1, abs=0.002)


def test_an_image_that_is_too_large_is_refused_before_it_is_read(visitor, monkeypatch):
    image = picture(101, 100)
    monkeypatch.setattr("pipeline.app.image.MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was read"))
    assert "more than the 10,000" in classify_image(visitor, image, status=422)["error"]


@pytest.mark.parametrize("announced", [True, False])
def test_more_bytes_than_allowed_are_refused_and_not_kept(visitor, announced):
    key = visitor.ask("POST", "/api/scenes", json={})["key"]
    parts = [bytes(2**20)] * 12
    content = b"".join(parts) if announced else iter(parts)
    answer = visitor.ask("PUT", f"/api/scenes/{key}/files/a.tif", 413, content=content)
    assert answer["error"].startswith("a.tif is larger than the 8 MiB")
    assert "send one" in visitor.look(key, 422)["error"]
    visitor.ask("PUT", f"/api/scenes/{key}/files/a.tif", 422, content=b"the name is free again")


# A scene


def test_a_scene_becomes_the_map_that_classify_writes(visitor, scene, light_predictor, tmp_path):
    key = visitor.send(scene)
    look = visitor.look(key)
    assert look["description"]["ground grid"] == "448x448 pixels of 10 m"
    assert [entry["tiles"] for entry in look["strides"]] == [49, 169, 625, 2401]
    assert any("Level-1C" in note["text"] for note in look["notes"])
    shown = visitor.http.get(f"/api/scenes/{key}/picture")
    assert Image.open(io.BytesIO(shown.content)).size == (448, 448)

    assert visitor.classify(key, stride=32, probabilities=True)["state"] == "done"
    described = visitor.ask("GET", f"/api/map?scene={key}")
    cells = np.frombuffer(visitor.http.get(f"/api/cells?scene={key}").content, np.uint8).reshape(2, 14, 14)
    expected = classify_scene(str(scene), tmp_path, light_predictor, ClassifyOptions(stride=32))
    for layer, kind in zip(cells, ("landcover", "confidence"), strict=True):
        with rasterio.open(expected.files[kind]) as dataset:
            np.testing.assert_array_equal(layer, dataset.read(1))
    assert [entry["hectares"] for entry in described["classes"]] == [area.hectares for area in expected.areas]

    answer = visitor.http.get(f"/api/outputs.zip?scene={key}")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    endings = {name.removeprefix(scene.stem) for name in archive.namelist()}
    written = {file.name.removeprefix(scene.stem) for file in expected.files.values()}
    assert endings == written | {"_probabilities.tif", "_landcover.png"}
    record = json.loads(archive.read(f"{scene.stem}_run.json"))
    assert record["scene"] == scene.name  # and not where it lay on the server


def test_single_band_files_are_one_scene(visitor, write_raster):
    bands = np.random.default_rng(0).integers(300, 2500, (3, 128, 128)).astype(np.uint16)
    files = [
        write_raster(band[None], f"T33UUP_20230601_{name}.tif", tags={"PRODUCT_LEVEL": "Level-1C"})
        for name, band in zip(("B04", "B03", "B02"), bands, strict=True)
    ]
    assert visitor.look(visitor.send(*files))["description"]["scene"] == "T33UUP_20230601"


def test_what_is_stated_about_the_pixels_is_used(visitor, write_raster):
    pixels = np.random.default_rng(0).integers(300, 2500, (4, 128, 128)).astype(np.uint16)
    key = visitor.send(write_raster(pixels, "unnamed.tif"))
    error = visitor.look(key, 422)["error"]
    assert error.startswith(
        "unnamed.tif has 4 bands, none of which is named"
    )  # and no folder of the server's
    look = visitor.look(key, bands={"B04": 3, "B03": 2, "B02": 1}, level="l2a", offset=0)
    assert any("red=3, green=2, blue=1" in note["text"] for note in look["notes"])


@pytest.mark.parametrize(
    ("wishes", "word"),
    [
        ({"model": "/etc"}, "choose one of"),
        ({"crs": "/etc/passwd"}, "EPSG:CODE"),
        ({"offset": "many"}, "whole number"),
        ({"gsd": "nan"}, "number"),
        ({"level": "l9"}, "--level"),
        ({"resolution": 30}, "10, 20 and 60"),
    ],
)
def test_wishes_that_cannot_be_meant_are_refused(visitor, scene, wishes, word):
    assert word in visitor.look(visitor.send(scene), 422, **wishes)["error"]


def test_a_stride_that_cannot_be_meant_is_refused(visitor, scene):
    key = visitor.send(scene)
    visitor.look(key)
    assert "--stride 7" in visitor.ask("POST", f"/api/scenes/{key}/run", 422, json={"stride": 7})["error"]


def vrt(source: str) -> bytes:
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


def safe_with(image: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("S2A_MSIL1C_X.SAFE/GRANULE/L1C/IMG_DATA/T33_B02.jp2", image)
    return memory.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.tif", b"II*\0 and then nothing", "cannot be opened"),
        ("a.tif", vrt("/etc/passwd"), "neither a GeoTIFF"),
        ("a.tif", b"", "neither a GeoTIFF"),
        ("a.png", picture(), "belong under Image"),
        ("a.zip", b"PK\3\4 and then nothing", "damaged zip"),
        ("a.zip", safe_with(vrt("/etc/passwd")), "no JPEG 2000"),
    ],
)
def test_files_that_are_no_scene_are_refused_and_removed(visitor, name, content, word):
    key = visitor.ask("POST", "/api/scenes", json={})["key"]
    assert word in visitor.ask("PUT", f"/api/scenes/{key}/files/{name}", 422, content=content)["error"]
    assert "send one" in visitor.look(key, 422)["error"]


def test_a_header_that_declares_too_many_pixels_is_enough(visitor, tmp_path):
    path = tmp_path / "huge.tif"
    profile = {"width": 50_000, "height": 50_000, "count": 3, "dtype": "uint16", "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **profile):
        pass
    key = visitor.ask("POST", "/api/scenes", json={})["key"]
    answer = visitor.ask("PUT", f"/api/scenes/{key}/files/huge.tif", 422, content=path.read_bytes())
    assert "50,000 x 50,000 pixels" in answer["error"]


# Several visitors


def test_visitors_do_not_see_each_others_scenes(address, scene):
    one, other = Visitor(address), Visitor(address)
    key = one.send(scene)
    one.look(key)
    assert one.classify(key)["state"] == "done"
    for method, path in (
        ("POST", f"/api/scenes/{key}/look"),
        ("GET", f"/api/scenes/{key}/run"),
        ("GET", f"/api/scenes/{key}/picture"),
        ("DELETE", f"/api/scenes/{key}/run"),
        ("GET", f"/api/map?scene={key}"),
        ("GET", f"/api/cells?scene={key}"),
        ("GET", f"/api/outputs.zip?scene={key}"),
    ):
        assert "gone" in other.ask(method, path, 404)["error"]


def test_scenes_wait_for_each_other_and_know_their_place(address, scene):
    first, second, third = (Visitor(address) for _ in range(3))
    keys = [visitor.send(scene) for visitor in (first, second, third)]
    for visitor, key in zip((first, second, third), keys, strict=True):
        visitor.look(key)
        visitor.ask("POST", f"/api/scenes/{key}/run", json={"stride": 8})
    places = [
        visitor.ask("GET", f"/api/scenes/{key}/run")
        for visitor, key in zip((first, second, third), keys, strict=True)
    ]
    assert [place["before"] for place in places] == [0, 1, 2]
    # An image does not wait for scenes.
    started = time.monotonic()
    classify_image(third, picture())
    assert first.ask("GET", f"/api/scenes/{keys[0]}/run")["state"] in ("running", "writing"), started
    assert second.ask("DELETE", f"/api/scenes/{keys[1]}/run")["state"] == "cancelled"
    assert third.ask("GET", f"/api/scenes/{keys[2]}/run")["before"] == 1
    first.ask("DELETE", f"/api/scenes/{keys[0]}/run")
    assert first.end_of(keys[0])["state"] == "cancelled"
    first.ask("GET", f"/api/map?scene={keys[0]}", 404)
    wait_until(lambda: third.ask("GET", f"/api/scenes/{keys[2]}/run")["before"] == 0)
    third.ask("DELETE", f"/api/scenes/{keys[2]}/run")
    assert third.end_of(keys[2])["state"] == "cancelled"


class Thing:
    """Something of a visitor's."""

    def __init__(self, busy: bool = False):
        self.busy, self.closed = busy, False

    def close(self) -> None:
        self.closed = True


def test_the_oldest_scene_makes_room_but_not_one_that_is_being_classified(tmp_path):
    visitor = Visitors(tmp_path).welcome()
    things = [Thing(busy=True), *(Thing() for _ in range(KEPT))]
    for i, thing in enumerate(things):
        visitor.keep(str(i), thing)
    assert [thing.closed for thing in things] == [False, True, *[False] * (KEPT - 1)]


def test_who_stays_away_is_forgotten_with_all_files_unless_something_still_runs(tmp_path):
    visitors = Visitors(tmp_path)
    away, busy, present = (visitors.welcome() for _ in range(3))
    (away.folder / "upload.tif").write_bytes(b"much")
    away.keep("a", thing := Thing())
    busy.keep("b", Thing(busy=True))
    away.seen -= EXPIRE_AFTER + 1
    busy.seen -= EXPIRE_AFTER + 1
    visitors.sweep()
    assert visitors.find(away.token) is None
    assert thing.closed
    assert {path.name for path in tmp_path.iterdir()} == {busy.folder.name, present.folder.name}


# The folder that is served


def test_a_folder_lists_scenes_maps_and_the_report_and_nothing_hidden_or_outside(visitor):
    top = visitor.ask("GET", "/api/folder")
    assert top["folders"] == ["maps"]
    assert [scene["name"] for scene in top["scenes"]] == ["made.tif", "points-out.vrt"]
    assert visitor.ask("GET", "/api/folder?path=maps") == {
        "path": "maps",
        "folders": [],
        "scenes": [],
        "maps": [{"name": "made", "path": "maps/made_run.json"}],
        "report": "maps/batch_report.html",
        "is_scene": False,
        "left_out": 0,
    }


OUTSIDE = [
    "..",
    "../outside",
    "/etc",
    "linked",
    "linked/secret.csv",
    "link.csv",
    ".hidden.csv",
    "a\0b",
    "maps/../..",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_it(visitor, path):
    for method, address, request in (
        ("GET", "/api/folder", {"params": {"path": path}}),
        ("POST", "/api/scenes", {"json": {"path": path}}),
        ("GET", "/api/map", {"params": {"path": path}}),
        ("GET", "/api/outputs.zip", {"params": {"path": f"{path}/made_run.json"}}),
    ):
        assert "There is no file or folder" in visitor.ask(method, address, 422, **request)["error"]


@pytest.mark.parametrize(
    "path",
    ["link.csv", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", ".hidden.csv", "linked/secret.csv"],
)
def test_no_file_outside_is_given(visitor, path):
    assert visitor.http.get(f"/files/{path}").status_code in (404, 422)


def test_only_files_of_maps_are_given(visitor):
    assert visitor.http.get("/files/notes.txt").status_code == 404
    answer = visitor.http.get("/files/maps/made_areas.csv")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_a_scene_that_points_out_of_the_folder_is_refused(visitor):
    key = visitor.ask("POST", "/api/scenes", json={"path": "points-out.vrt"})["key"]
    assert "outside of the folder" in visitor.look(key, 422)["error"]


def test_a_report_is_shut_in(visitor):
    answer = visitor.http.get("/files/maps/batch_report.html")
    assert answer.text.endswith("<h1>Report</h1>")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-downloads;")
    assert "script" not in policy.replace("allow-scripts", "script")


def test_a_map_of_the_folder_is_shown_with_its_scene(visitor):
    described = visitor.ask("GET", "/api/map?path=maps/made_run.json")
    assert (described["rows"], described["columns"], described["stride"]) == (14, 14, 32)
    shown = visitor.http.get("/api/map-picture?path=maps/made_run.json")
    assert Image.open(io.BytesIO(shown.content)).size == (448, 448)


def test_a_scene_of_the_folder_is_classified_and_the_folder_left_as_it_was(visitor, root):
    before = sorted(root.rglob("*"))
    key = visitor.ask("POST", "/api/scenes", json={"path": "made.tif"})["key"]
    visitor.look(key)
    assert visitor.classify(key)["state"] == "done"
    assert sorted(root.rglob("*")) == before
    visitor.ask("PUT", f"/api/scenes/{key}/files/made.tif", 409, content=b"II*\0")


# The command


def landcover_app(*arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cli", "app", "--port", "0", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
    )


def test_the_command_says_its_address_at_once_and_leaves_nothing_behind(tmp_path):
    with landcover_app("--model", LIGHT, TMPDIR=str(tmp_path)) as process:
        address = process.stdout.readline().split()[2]
        assert httpx.get(f"{address}/api/state").json() == {"ready": False}  # torch is not even imported
        assert "<title>landcover</title>" in httpx.get(address).text
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_ends_the_command_with_one_sentence():
    result = CliRunner().invoke(cli.main, ["app", "--port", "0", "--model", "nonsense"])
    assert result.exit_code == 2
    assert "No model 'nonsense'" in result.stderr


def test_an_address_that_is_taken_ends_the_command_with_one_sentence(address):
    result = CliRunner().invoke(cli.main, ["app", "--port", address.rpartition(":")[2]])
    assert result.exit_code == 2
    assert "choose another with --port" in result.stderr
