"""How a command ends: its exit status, and one sentence for each error."""

import logging
import sys
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from pipeline.commands.lazy import lazy_command
from pipeline.errors import DeviceError, ModelError, OutputError, SceneError, TrainingError, UsageError
from tests.support.command import LIGHT, fails

WORK = "tests_made_up_work"


@pytest.fixture
def end_with(monkeypatch):
    """Return a function that runs a command whose work raises an error."""

    def run(error: BaseException, *arguments: str, **attributes: object) -> Result:
        def work() -> None:
            logging.getLogger("pipeline").warning("about `min_confidence`")
            raise error

        module = ModuleType(WORK)
        module.work = work  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, WORK, module)
        command = lazy_command(f"{WORK}:work", name="made-up", **attributes)(lambda: None)
        return CliRunner().invoke(command, arguments)

    return run


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (UsageError, 2),
        (ModelError, 2),
        (DeviceError, 2),
        (SceneError, 1),
        (TrainingError, 1),
        (OutputError, 1),
    ],
)
def test_an_error_is_one_sentence_with_flags(end_with, kind, status):
    result = end_with(kind("Give `level` or `output`, not `nothing`."))
    assert result.exit_code == status
    assert result.stderr == "about --min-confidence\nerror: Give --level or -o, not `nothing`.\n"
    assert result.stdout == ""


def test_ctrl_c_ends_with_130_and_says_how_to_continue(end_with):
    result = end_with(KeyboardInterrupt(), interrupted="Run it again.")
    assert result.exit_code == 130
    assert result.stderr.endswith("\nInterrupted. Run it again.\n")


def test_debug_shows_the_traceback(end_with):
    result = end_with(SceneError("No such scene."), "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "error: No such scene.\n" in result.stderr


def test_what_click_raises_is_left_to_click(end_with):
    result = end_with(click.UsageError("no such thing"))
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: no such thing\n")


def test_a_bug_is_reported_without_a_traceback(scene, monkeypatch):
    def stumble(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("pipeline.commands.info.describe_scene", stumble)
    message = fails(1, "info", scene, *LIGHT)
    assert "unexpected ZeroDivisionError" in message
    assert "--debug" in message
