"""`landcover info`: what would be done with a scene, and why."""

import json

import click

from pipeline.classify import describe_scene
from pipeline.commands.printing import in_command_words, print_table
from pipeline.model.bundle import load_bundle
from pipeline.options import ClassifyOptions


def info(scene: str, model: str, options: ClassifyOptions, as_json: bool) -> None:
    """Print the facts and the notes on a scene."""
    description = describe_scene(scene, load_bundle(model).card, options)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    notes = description.pop("notes")
    print_table(description)
    for note in notes:
        prefix = "warning: " if note["level"] == "warning" else "- "
        click.echo(f"{prefix}{in_command_words(note['text'])}")
