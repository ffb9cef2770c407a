"""The server process: the page at once, a clean end, and start-up errors in one sentence."""

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

import cli
from pipeline.app.server import STATIC
from tests.support.app_server import LIGHT, httpx


def start_app(*arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cli", "app", "--port", "0", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
    )


def test_the_page_is_served_before_the_model_is_loaded_and_no_file_is_left_behind(tmp_path):
    with start_app("--model", LIGHT, TMPDIR=str(tmp_path)) as process:
        address = process.stdout.readline().split()[2]
        assert httpx.get(f"{address}/api/state").json() == {"ready": False}  # torch is not even imported
        assert "<title>landcover</title>" in httpx.get(address).text
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_ends_the_command_with_one_sentence():
    result = CliRunner().invoke(cli.main, ["app", "--port", "0", "--model", "nonsense"])
    assert result.exit_code == 2
    assert "No model 'nonsense'" in result.stderr


def test_a_port_in_use_ends_the_command_with_one_sentence(address):
    result = CliRunner().invoke(cli.main, ["app", "--port", address.rpartition(":")[2]])
    assert result.exit_code == 2
    assert "choose another with --port" in result.stderr


def test_the_page_names_no_other_address():
    for file in (*STATIC.glob("*.js"), *STATIC.glob("*.css"), *STATIC.glob("*.html")):
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file
        assert "https://" not in text, file
