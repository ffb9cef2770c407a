"""`landcover model`: the models that ship, and what their cards say."""

import json

import click

from pipeline.commands.printing import print_table
from pipeline.model.bundle import list_bundles, load_bundle
from pipeline.model.card import ModelCard


def list_models() -> None:
    """Print a line for each model that ships."""
    for name in list_bundles():
        card = load_bundle(name).card
        accuracy = card.metrics.get("accuracy")
        measured = f"{accuracy:.2%} on {card.metrics['split']}" if accuracy is not None else "not measured"
        click.echo(f"{name:<28}{card.architecture:<18}{len(card.bands)} bands  {measured}")


def show_model(name: str, as_json: bool) -> None:
    """Print a model's card."""
    card = load_bundle(name).card
    if as_json:
        click.echo(json.dumps(card.to_json(), indent=2))
    else:
        print_card(card)


def print_card(card: ModelCard) -> None:
    """Print the main facts of a card and its classes."""
    low, high = card.scaling.reflectance
    print_table(
        {
            "name": card.name,
            "architecture": f"{card.architecture}, {card.head} head",
            "input": f"{card.tile_size}x{card.tile_size} pixels of {card.gsd:g} m, "
            f"bands {' '.join(card.bands)}",
            "trained on": f"{card.level.upper()} reflectance {low:g}-{high:g}",
            "accuracy": f"{card.metrics.get('accuracy', float('nan')):.2%} on {card.metrics.get('split')}",
            "license": card.license,
            "digest": card.digest,
        }
    )
    for c in card.classes:
        click.echo(f"{c.id:>4}  {c.color}  {c.name}")
