"""Draws a map as QGIS shows it, with the legend that QGIS makes of it: how `qgis_map.png` was made.

Needs QGIS's own Python (Debian and Ubuntu: python3-qgis), nothing of this project:

    landcover classify demo/demo.tif -o demo/fine --stride 16
    QT_QPA_PLATFORM=offscreen /usr/bin/python3 docs/draw_qgis_map.py demo/fine/demo docs/qgis_map.png

No style is loaded here: layers have the one that QGIS found by itself.
"""

import sys

from qgis.core import (
    QgsApplication,
    QgsLayout,
    QgsLayoutExporter,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutItemScaleBar,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLegendStyle,
    QgsMapLayerLegendUtils,
    QgsProject,
    QgsRasterLayer,
    QgsTextFormat,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QFont

MAP_MM, LEGEND_MM, MARGIN_MM = 120.0, 46.0, 4.0
DPI = 150
FONT = "DejaVu Sans"


def draw(stem: str, picture: str) -> None:
    """Draw `STEM_landcover.geojson` over `STEM_landcover.tif`, coloured, named and in place by themselves."""
    raster = QgsRasterLayer(f"{stem}_landcover.tif", "Land cover")
    polygons = QgsVectorLayer(f"{stem}_landcover.geojson", "Land cover (polygons)")
    project = QgsProject.instance()
    project.addMapLayers([raster, polygons])
    project.setCrs(raster.crs())

    layout = QgsLayout(project)
    layout.initializeDefaults()
    height = MAP_MM + 2 * MARGIN_MM
    layout.pageCollection().page(0).setPageSize(QgsLayoutSize(MAP_MM + LEGEND_MM + 3 * MARGIN_MM, height))
    add_map(layout, raster, [polygons, raster])
    add_legend(layout, raster, polygons)
    if not QgsLayoutExporter(layout).renderPageToImage(0, dpi=DPI).save(picture):
        raise OSError(f"{picture} cannot be written")


def add_map(layout: QgsLayout, raster: QgsRasterLayer, layers: list) -> None:
    """Place the map at the left, as large as its raster, with a scale bar on it."""
    item = QgsLayoutItemMap(layout)
    layout.addLayoutItem(item)
    item.attemptMove(QgsLayoutPoint(MARGIN_MM, MARGIN_MM))
    item.attemptResize(QgsLayoutSize(MAP_MM, MAP_MM))
    item.setLayers(layers)
    item.setExtent(raster.extent())

    bar = QgsLayoutItemScaleBar(layout)
    layout.addLayoutItem(bar)
    bar.setStyle("Single Box")
    bar.setLinkedMap(item)
    bar.setUnits(QgsUnitTypes.DistanceKilometers)
    bar.setUnitLabel("km")
    bar.setUnitsPerSegment(1)
    bar.setNumberOfSegments(2)
    bar.setNumberOfSegmentsLeft(0)
    bar.setHeight(1.5)
    bar.setBoxContentSpace(0)
    bar.setTextFormat(QgsTextFormat.fromQFont(QFont(FONT, 9)))
    bar.attemptMove(QgsLayoutPoint(2 * MARGIN_MM + MAP_MM, MARGIN_MM + MAP_MM - bar.rect().height()))


def add_legend(layout: QgsLayout, raster: QgsRasterLayer, polygons: QgsVectorLayer) -> None:
    """Place QGIS's list of layers at the right, without the polygons, whose entries are the raster's."""
    legend = QgsLayoutItemLegend(layout)
    layout.addLayoutItem(legend)
    legend.setAutoUpdateModel(False)  # a tree of its own, from which layers can be taken
    tree = legend.model().rootGroup()
    tree.removeLayer(polygons)
    entries = len(raster.renderer().classes())  # entry 0 is the band's name
    QgsMapLayerLegendUtils.setLegendNodeOrder(tree.findLayer(raster), list(range(1, entries + 1)))
    legend.model().refreshLayerLegend(tree.findLayer(raster))
    legend.setStyleFont(QgsLegendStyle.Subgroup, QFont(FONT, 11, QFont.Bold))
    legend.setStyleFont(QgsLegendStyle.SymbolLabel, QFont(FONT, 9))
    legend.setBoxSpace(0)
    legend.attemptMove(QgsLayoutPoint(2 * MARGIN_MM + MAP_MM, MARGIN_MM))


application = QgsApplication([], False)
application.initQgis()
draw(*sys.argv[1:])
QgsProject.instance().clear()
application.exitQgis()
