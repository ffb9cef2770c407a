"""The preview: a picture of a map with its legend, for a report or a quick look without a GIS."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipeline.files import write_file
from pipeline.maps.areas import class_areas
from pipeline.maps.cog import rgb
from pipeline.maps.landcover_map import LandcoverMap

_MAP_INCHES = 7.0
"""The longer side of the map."""

_DPI = 120


def write_preview(landcover: LandcoverMap, path: Path, title: str = "") -> None:
    """Write the classes as a PNG, cut to the scene's footprint, with names and shares in the legend.

    `title` stands above the map.

    Raises:
        OutputError: the file cannot be written.
    """
    palette = np.zeros((256, 4), dtype=np.uint8)
    for entry in landcover.classes:
        palette[entry.id] = (*rgb(entry.color), 255)
    rows, cols = landcover.class_id.shape
    width, height = landcover.footprint
    scale = _MAP_INCHES / max(width, height)

    figure = Figure(figsize=(max(width * scale, 1.0), max(height * scale, 1.0)), dpi=_DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(palette[landcover.class_id], interpolation="nearest", extent=(0, cols, rows, 0))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], title=title)
    axes.legend(
        handles=_legend(landcover), loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderpad=0
    )
    memory = io.BytesIO()
    figure.savefig(memory, format="png", bbox_inches="tight", pad_inches=0.1)
    write_file(path, memory.getbuffer())


def _legend(landcover: LandcoverMap) -> list[Patch]:
    """Return a legend entry for each class in the map, the largest first."""
    colors = {entry.id: entry.color for entry in landcover.classes}
    present = [area for area in class_areas(landcover) if area.share_percent]
    present.sort(key=lambda area: area.hectares, reverse=True)
    return [
        Patch(color=colors[area.class_id], label=f"{area.class_name}  {area.share_percent:.1f} %")
        for area in present
    ]
