"""What a user can type: help for everything, at once, and parameters that the work takes."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import cli
from pipeline.commands.declarations import all_commands
from pipeline.commands.lazy import LazyCommand, build, load
from tests.support.command import landcover

ROOT = Path(cli.__file__).parent
COMMANDS = list(all_commands())
HELP = [["--help"], ["model", "--help"], ["classify", "--help"], ["model", "show", "--help"]]

LOADED = """
import sys
before = {name.partition(".")[0] for name in sys.modules}
from cli import main
main(sys.argv[1:], standalone_mode=False)
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)), sep=" ")
"""


def path_of(command: LazyCommand) -> list[str]:
    """Return the words that lead to a command."""
    return ["model", command.name] if command.name in ("list", "show") else [command.name]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_under_both_names(command):
    short, long = (landcover(*path_of(command), name) for name in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.output == long.output
    assert long.output.startswith(f"Usage: main {' '.join(path_of(command))} ")
    assert "--debug" in long.output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_is_explained(command):
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_work_takes_what_the_command_declares(command):
    values = {param.name: None for param in command.params if param.name != "debug"}
    built = {name: build(kind, values) for name, kind in command.builds.items()}
    assert set(inspect.signature(load(command.work)).parameters) == values.keys() | built.keys()


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_loads_nothing_but_click(arguments):
    output = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert output.splitlines()[-1].split() == ["cli", "click", "pipeline"]


@pytest.mark.parametrize("arguments", HELP[::2], ids=" ".join)
def test_help_answers_at_once(arguments):
    """A tenth of a second beyond Python's own start; twice that passes, since machines are busy."""
    start = min(user_seconds("-c", "pass") for _ in range(3))
    assert min(user_seconds("-m", "cli", *arguments) for _ in range(3)) - start < 0.2


def user_seconds(*arguments: str) -> float:
    before = os.times().children_user
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, cwd=ROOT)
    return os.times().children_user - before
