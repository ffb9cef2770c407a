"""Commands that import their work when they run, and get options as dataclasses."""

import sys
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from pipeline.commands.lazy import build, lazy_command
from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions

WORK = "tests_made_up_work"


@pytest.fixture
def work(monkeypatch) -> ModuleType:
    """Return a module that commands can import as their work."""
    module = ModuleType(WORK)
    monkeypatch.setitem(sys.modules, WORK, module)
    return module


def declare(**attributes: object) -> click.Command:
    @lazy_command(f"{WORK}:work", name="made-up", **attributes)
    @click.option("--stride", type=int)
    @click.option("--level", default="auto")
    @click.option("--device", default="auto")
    @click.option("--times", default=1)
    def command() -> None:
        """Do something."""

    return command


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_options_arrive_as_dataclasses_and_the_rest_by_name(work):
    calls = []
    work.work = lambda **arguments: calls.append(arguments)
    command = declare(builds={"options": ClassifyOptions, "computing": PredictorOptions})

    result = run(command, "--stride", "16", "--level", "l2a", "--device", "cpu", "--times", "3")

    assert result.exit_code == 0, result.output
    assert calls == [
        {
            "options": ClassifyOptions(scene=SceneOptions(level="l2a"), stride=16),
            "computing": PredictorOptions(device="cpu"),
            "times": 3,
        }
    ]


def test_the_work_is_imported_only_when_the_command_runs():
    assert run(declare(), "--help").exit_code == 0
    failed = run(declare())
    assert failed.exit_code == 1
    assert WORK in failed.stderr


def test_a_missing_extra_is_wrong_use_and_names_its_installation():
    failed = run(declare(extra="app"))
    assert failed.exit_code == 2
    assert failed.stderr == f"error: landcover made-up needs {WORK}: pip install 'landcover[app]'.\n"


def test_fields_without_a_value_keep_their_default_and_other_values_stay():
    values = {"stride": 8, "other": 1}
    assert build(ClassifyOptions, values) == ClassifyOptions(stride=8)
    assert values == {"other": 1}
