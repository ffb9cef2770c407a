"""The command as a user runs it, in this process."""

from click.testing import CliRunner, Result

import cli

LIGHT = ["--model", "eurosat-rgb-mobilenetv2"]


def landcover(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def fails(status: int, *arguments: object) -> str:
    """Run a command that must fail, and return its one-sentence message."""
    result = landcover(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    (message,) = [line for line in result.stderr.splitlines() if line.lower().startswith("error:")]
    return message
