"""landcover: satellite scenes to land-cover maps.

This is the public Python API: what most programs need can be imported from here. Each name is loaded when
it is first used, since torch and GDAL take seconds that `landcover --help` should not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.classify import Result, classify_scene
    from pipeline.model.bundle import Bundle, load_bundle
    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network
    from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions
    from pipeline.scenes.scene import open_scene

_HOMES = {
    "Bundle": "pipeline.model.bundle",
    "ClassifyOptions": "pipeline.options",
    "Predictor": "pipeline.model.predictor",
    "PredictorOptions": "pipeline.options",
    "Result": "pipeline.classify",
    "SceneOptions": "pipeline.options",
    "classify_scene": "pipeline.classify",
    "load_bundle": "pipeline.model.bundle",
    "load_network": "pipeline.model.weights",
    "open_scene": "pipeline.scenes.scene",
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
    "load_network",
    "open_scene",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
