"""landcover: satellite scenes to land-cover maps.

What most programs need can be had from here; it is imported when first used, since torch and GDAL
take seconds that `landcover --help` should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.classify import ClassifyOptions, Result, classify_scene
    from pipeline.model.bundle import Bundle, load_bundle
    from pipeline.predictor import Predictor, PredictorOptions
    from pipeline.scene import SceneOptions, open_scene

_HOMES = {
    "Bundle": "pipeline.model.bundle",
    "ClassifyOptions": "pipeline.classify",
    "Predictor": "pipeline.predictor",
    "PredictorOptions": "pipeline.predictor",
    "Result": "pipeline.classify",
    "SceneOptions": "pipeline.scene",
    "classify_scene": "pipeline.classify",
    "load_bundle": "pipeline.model.bundle",
    "open_scene": "pipeline.scene",
}

__all__ = [
    "Bundle",
    "ClassifyOptions",
    "Predictor",
    "PredictorOptions",
    "Result",
    "SceneOptions",
    "classify_scene",
    "load_bundle",
    "open_scene",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
