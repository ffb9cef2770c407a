"""Downloads from a server on this machine: whole, resumed, broken off, damaged, absent."""

import hashlib
import io
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

import cli
from pipeline.errors import OutputError, TrainingError
from pipeline.training import download as module
from pipeline.training.download import EUROSAT_MS, EUROSAT_RGB, Archive, download, eurosat_with
from pipeline.training.folders import find_tiles
from tests.support.tiles import TINY_RECIPE, make_tiles

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """Serves `data` at any address; each request takes its behaviour from the front of the lists.

    `break_after`: close the connection after so many bytes (None: send all that was asked for).
    """

    data: bytes
    ranges: bool = True
    status: int = 200
    break_after: list[int | None] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # the first byte of each request
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["Server"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.handle_error = lambda request, address: None  # that the other side goes away is no news
        self.url = f"http://127.0.0.1:{server.server_port}/files/Tiles.zip"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(match[1]) if match else 0
                served.asked.append(start)
                if served.status != 200:
                    self.send_error(served.status)
                    return
                start = start if served.ranges else 0
                body = served.data[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                limit = served.break_after.pop(0) if served.break_after else None
                self.wfile.write(body[:limit])

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def zipped(tmp_path_factory) -> bytes:
    """Return a zip that wraps its class folders as EuroSAT's do, of some 100 kB."""
    folder = tmp_path_factory.mktemp("zipped")
    make_tiles(folder / "ds" / "images" / "2750", 10)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    return stream.getvalue()


@pytest.fixture
def server(zipped) -> Iterator[Server]:
    with Server(zipped).running() as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)


def archive_of(server: Server, data: bytes | None = None) -> Archive:
    data = server.data if data is None else data
    return Archive(server.url, hashlib.md5(data).hexdigest(), len(data))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_archive_becomes_a_folder_of_class_folders(server, tmp_path):
    folder = download(archive_of(server), tmp_path / "new" / "data")
    assert folder == tmp_path / "new" / "data" / "Tiles"
    assert len(find_tiles(folder)) == 30
    assert names_in(folder.parent) == ["Tiles"]
    assert names_in(folder) == ["Field", "Forest", "Water"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    folder = download(archive_of(server), tmp_path)
    assert download(archive_of(server), tmp_path) == folder
    assert download(archive_of(server), folder) == folder
    assert server.asked == [0]


def test_a_zip_that_is_there_is_unpacked(server, tmp_path):
    (tmp_path / "Tiles.zip").write_bytes(server.data)
    assert len(find_tiles(download(archive_of(server), tmp_path))) == 30
    assert server.asked == []


def test_a_download_resumes_where_an_earlier_one_stopped(server, tmp_path):
    (tmp_path / "Tiles.zip.part").write_bytes(server.data[:40_000])
    assert len(find_tiles(download(archive_of(server), tmp_path))) == 30
    assert server.asked == [40_000]


def test_a_closed_connection_is_resumed(server, tmp_path):
    server.break_after = [30_000, 0, 20_000, None]
    assert len(find_tiles(download(archive_of(server), tmp_path))) == 30
    assert server.asked == [0, 30_000, 30_000, 50_000]


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "Tiles.zip.part").write_bytes(b"something else" * 100)
    assert len(find_tiles(download(archive_of(server), tmp_path))) == 30


def test_a_server_that_keeps_closing_leaves_what_came(server, tmp_path):
    server.break_after = [30_000] + [0] * 20
    with pytest.raises(TrainingError, match=r"cannot be fetched \(.*\): .* run the same command again"):
        download(archive_of(server), tmp_path)
    assert names_in(tmp_path) == ["Tiles.zip.part"]
    assert (tmp_path / "Tiles.zip.part").stat().st_size == 30_000
    server.break_after = []
    assert len(find_tiles(download(archive_of(server), tmp_path))) == 30


def test_of_torchruns_processes_only_the_first_fetches(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setenv("LOCAL_RANK", "1")
    found = []
    other = Thread(target=lambda: found.append(download(archive_of(server), tmp_path)))
    other.start()
    other.join(0.2)
    assert other.is_alive()
    monkeypatch.setenv("LOCAL_RANK", "0")
    download(archive_of(server), tmp_path)
    other.join(10)
    assert found == [tmp_path / "Tiles"]
    assert server.asked == [0]


def test_a_wrong_checksum_leaves_nothing_that_would_be_trusted(server, tmp_path):
    wanted = archive_of(server, server.data[::-1])
    with pytest.raises(TrainingError, match=rf"its MD5 is [0-9a-f]+, not {wanted.md5}\) and was removed"):
        download(wanted, tmp_path)
    assert names_in(tmp_path) == []


def test_a_file_of_another_size_is_not_even_fetched(server, tmp_path):
    wanted = archive_of(server, server.data + b"more")
    with pytest.raises(TrainingError, match=f"has {len(server.data)} bytes, not {wanted.size}"):
        download(wanted, tmp_path)
    assert names_in(tmp_path) == []


def test_the_servers_error_is_reported(server, tmp_path):
    server.status = 404
    with pytest.raises(TrainingError, match=r"the server answers 404, Not Found"):
        download(archive_of(server), tmp_path)
    assert server.asked == [0]


def test_without_network_the_remedy_is_named(server, tmp_path):
    nobody = Archive("http://127.0.0.1:9/Tiles.zip", "0" * 32, 1000)
    with pytest.raises(TrainingError, match=r"\(Connection refused\): .* elsewhere and name its folder with"):
        download(nobody, tmp_path)
    nowhere = Archive("http://nowhere.invalid/Tiles.zip", "0" * 32, 1000)
    with pytest.raises(TrainingError, match=r"nowhere\.invalid/Tiles\.zip cannot be fetched"):
        download(nowhere, tmp_path)


@pytest.mark.parametrize("free", [[10_000], [10**9, 10_000]], ids=["for the zip", "for its tiles"])
def test_too_little_space_is_reported_before_it_is_filled(server, tmp_path, monkeypatch, free):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0)))
    with pytest.raises(OutputError, match=r"0\.00 GB free and 0\.00 GB are needed: free some space or name"):
        download(archive_of(server), tmp_path)
    assert not (tmp_path / "Tiles").exists()


def test_an_interrupted_unpacking_leaves_no_half_folder(server, tmp_path, monkeypatch):
    extract, members = zipfile.ZipFile.extract, []

    def interrupted(*args):
        members.append(args)
        if len(members) == 7:
            raise OSError(28, "No space left on device")
        return extract(*args)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(
            OutputError, match=r"cannot be written to \(No space left on device\): free some space"
        ):
            download(archive_of(server), tmp_path)
    assert names_in(tmp_path) == ["Tiles.zip"]
    assert len(find_tiles(download(archive_of(server), tmp_path))) == 30
    assert server.asked == [0]


def test_a_folder_that_cannot_be_made_is_reported(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/data cannot be written to .*with `data`"):
        download(archive_of(server), tmp_path / "file" / "data")


def test_the_bands_decide_which_archive():
    assert eurosat_with(("B04", "B03", "B02")) is EUROSAT_RGB
    assert eurosat_with(("B02", "B03", "B04", "B08")) is EUROSAT_MS


def test_eurosat_comes_from_its_zenodo_record():
    for archive, name in ((EUROSAT_RGB, "EuroSAT_RGB"), (EUROSAT_MS, "EuroSAT_MS")):
        assert archive.url.startswith("https://zenodo.org/records/7711810/files/")
        assert archive.name == name
        assert re.fullmatch("[0-9a-f]{32}", archive.md5)


# The command


@pytest.fixture
def recipe(tmp_path) -> str:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    return str(tmp_path / "tiny.yaml")


def test_train_downloads_what_the_recipe_needs_and_skips_what_is_broken(
    server, tmp_path, recipe, monkeypatch
):
    stream = io.BytesIO(server.data)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("ds/images/2750/Field/broken.png", b"not a picture")
        archive.writestr("ds/images/2750/split-train.txt", "which `split` random leaves unread")
    server.data = stream.getvalue()
    monkeypatch.setattr(module, "EUROSAT_RGB", archive_of(server))
    data, run = tmp_path / "data", tmp_path / "run"
    arguments = ["train", "--data", str(data), "--config", recipe, "-o", str(run), "--split", "random"]

    refused = CliRunner().invoke(cli.main, [*arguments, "--download"])
    assert refused.exit_code == 1
    assert "broken.png cannot be read" in refused.stderr
    result = CliRunner().invoke(cli.main, [*arguments, "--download", "--skip-unreadable"])
    assert result.exit_code == 0, result.output
    assert "tiles cannot be read and are left out" in result.stderr
    assert (data / "Tiles" / "Water").is_dir()
    assert (run / "card.json").is_file()


def test_train_without_data_points_to_the_download(tmp_path, recipe):
    arguments = ["train", "--data", str(tmp_path / "data"), "--config", recipe, "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert "is not a folder: name one, or fetch EuroSAT into it with --download" in result.stderr


def test_a_folder_of_scenes_is_not_taken_for_tiles(server, tmp_path):
    """One folder of images beside the tiles-to-be: two at least are classes."""
    make_tiles(tmp_path / "data", 1, colors={"scenes": (1, 2, 3)})
    target = download(archive_of(server), tmp_path / "data")
    assert target == tmp_path / "data" / "Tiles"
    assert len(find_tiles(target)) == 30


def test_what_multispectral_tiles_take_is_reported_before_two_gigabytes_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(TrainingError, match=r"multispectral, and rasterio, .* not installed"):
        download(module.EUROSAT_MS, tmp_path / "data")
    assert not (tmp_path / "data").exists()
