"""`landcover mosaic`: finished maps joined into one."""

from pathlib import Path

import click

from pipeline.commands.printing import print_areas, progress_bar
from pipeline.maps.mosaic import join_maps
from pipeline.options import MosaicOptions


def mosaic(folder: Path, output: Path, options: MosaicOptions) -> None:
    """Join the maps below a folder, and print what the joined map shows and where it is."""
    with progress_bar(output.name, "maps") as advance:
        result = join_maps(folder, output, options, advance)
    rows, cols = result.shape
    maps = f"{result.maps} map{'' if result.maps == 1 else 's'}"
    click.echo(f"{output.name}: {maps}, {rows} x {cols} cells in {result.seconds:.1f} s")
    print_areas(result.areas)
    click.echo(f"  map: {result.files['landcover']}")
