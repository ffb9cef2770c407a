"""Opens files in QGIS as dropping them on its window does, and says and draws what is seen.

Runs under the Python that QGIS's bindings belong to, with nothing of this project:
`python3 qgis_view.py JOB.json` prints a description of each file in `open` and draws each of `pictures`.
"""

import json
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsMapLayer,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def open_layer(path: str) -> QgsMapLayer:
    raster = path.endswith((".tif", ".vrt"))
    return QgsRasterLayer(path, Path(path).stem) if raster else QgsVectorLayer(path, Path(path).stem)


def describe(layer: QgsMapLayer) -> dict:
    found = {"valid": layer.isValid()}
    if not layer.isValid():
        return found
    extent = layer.extent()
    found |= {
        "crs": layer.crs().authid(),
        "bounds": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "renderer": layer.renderer().type() if layer.renderer() else None,
    }
    if isinstance(layer, QgsRasterLayer):
        found["bands"] = [layer.bandName(band + 1) for band in range(layer.bandCount())]
        if found["renderer"] == "paletted":
            entries = layer.renderer().classes()
            # What has no colour is not drawn, as no data.
            found["classes"] = [[e.value, e.label, e.color.name()] for e in entries if e.color.alpha()]
    else:
        found["fields"] = layer.fields().names()
        found["features"] = layer.featureCount()
        if found["renderer"] == "categorizedSymbol":
            categories = layer.renderer().categories()
            found["classes"] = [[c.value(), c.label(), c.symbol().color().name()] for c in categories]
    return found


def draw(layers: list[QgsMapLayer], bounds: list[float], crs: str, size: list[int], path: str) -> None:
    settings = QgsMapSettings()
    settings.setDestinationCrs(QgsCoordinateReferenceSystem(crs))
    settings.setExtent(QgsRectangle(*bounds))
    settings.setOutputSize(QSize(*size))
    settings.setBackgroundColor(QColor("white"))
    settings.setLayers(layers)  # the first lies on top
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    if not job.renderedImage().save(path):
        raise OSError(f"{path} cannot be written")


def main(job: dict) -> None:
    application = QgsApplication([], False)
    application.initQgis()
    print(json.dumps({path: describe(open_layer(path)) for path in job["open"]}))
    for picture in job["pictures"]:
        layers = [open_layer(path) for path in picture.pop("layers")]
        draw(layers, **picture)
        del layers
    application.exitQgis()


main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
