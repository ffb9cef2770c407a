"""Click commands whose work is imported only when they run, so that `--help` answers at once."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, TypeVar

import click

from pipeline.errors import UsageError

RUNNER = "pipeline.commands.errors:run"
"""The function that runs every command's work, with logging and the error policy."""

Options = TypeVar("Options")


class LazyCommand(click.Command):
    """A command that is declared in one module and does its work in another.

    `work` names the function that does it, as in `pipeline.commands.info:info`. The function gets each
    parameter by name, except those that are fields of a dataclass in `builds` (argument name -> dataclass):
    of these it gets the dataclass. `extra` is the optional part of the package that the command needs,
    `interrupted` what to print after Ctrl-C.
    """

    def __init__(
        self,
        *args: Any,
        work: str,
        builds: Mapping[str, type] | None = None,
        extra: str | None = None,
        interrupted: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.work = work
        self.builds = builds or {}
        self.extra = extra
        self.interrupted = interrupted
        self.params.append(
            click.Option(["--debug"], is_flag=True, help="Log everything, and show tracebacks.")
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Build the arguments, then import and run the work."""
        values = dict(ctx.params)
        debug = values.pop("debug")
        built: dict[str, Any] = {name: build(kind, values) for name, kind in self.builds.items()}
        return load(RUNNER)(self, {**values, **built}, debug=debug)

    def load_work(self) -> Callable[..., None]:
        """Import the function that does the work; raises UsageError if the command's extra is missing."""
        try:
            return load(self.work)
        except ModuleNotFoundError as error:
            if self.extra is None:
                raise
            raise UsageError(
                f"landcover {self.name} needs {error.name}: pip install 'landcover[{self.extra}]'."
            ) from error


def lazy_command(work: str, **attributes: Any) -> Callable[[Callable[[], None]], LazyCommand]:
    """Declare a `LazyCommand` with the decorated function's name, docstring and click parameters."""
    return click.command(cls=LazyCommand, work=work, **attributes)


def load(path: str) -> Any:
    """Import what `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def build(kind: type[Options], values: dict[str, Any]) -> Options:
    """Return a dataclass made of the values named like its fields, which are removed from `values`.

    A field that is a dataclass itself is built in the same way; a field without a value keeps its default.
    """
    given = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if isinstance(field.type, type) and is_dataclass(field.type):
            given[field.name] = build(field.type, values)
        elif field.name in values:
            given[field.name] = values.pop(field.name)
    return kind(**given)
