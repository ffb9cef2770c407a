"""`landcover app`: the page, served until Ctrl-C. Imports no PyTorch: the server loads it meanwhile."""

import os
import sys
import webbrowser

import click

from pipeline.app.server import serve
from pipeline.options import AppOptions


def app(options: AppOptions, no_browser: bool) -> None:
    """Serve the app, and open it in a browser where there is a screen."""

    def on_address(address: str) -> None:
        click.echo(f"landcover app: {address} (Ctrl-C stops it)")
        if not no_browser and has_screen() and sys.stdout.isatty():
            webbrowser.open(address)

    serve(options, on_address)


def has_screen() -> bool:
    """Tell whether there is a screen; without one, a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
