"""voxport puts a trained 3-D segmentation network to work, with every mask on the right voxels.

The public names, imported when first used::

    from voxport import Application, Grid, Volume, VoxportError
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .application import Application
    from .client import Client
    from .contract.card import read_card
    from .domain.cards.model_card import ModelCard
    from .domain.cards.writing import write_card
    from .domain.errors import CancelledError, InputError, LimitError, ModelError, OutputError, UsageError, VoxportError
    from .domain.geometry.grid import Box, Grid
    from .domain.labels.label_map import Label, LabelMap, LabelTable
    from .domain.run import Outputs, RunOptions
    from .domain.volume import Volume
    from .entrypoints.python import Predictor, load, segment
    from .ports.model import Model
    from .services.segmentation.predict import Prediction
    from .services.segmentation.segment import Segmentation, SegmentPorts
    from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Application",
    "Box",
    "CancelledError",
    "Client",
    "Grid",
    "InputError",
    "Label",
    "LabelMap",
    "LabelTable",
    "LimitError",
    "Model",
    "ModelCard",
    "ModelError",
    "OutputError",
    "Outputs",
    "Prediction",
    "Predictor",
    "RunOptions",
    "SegmentPorts",
    "Segmentation",
    "Settings",
    "UsageError",
    "Volume",
    "VoxportError",
    "load",
    "read_card",
    "segment",
    "write_card",
]

_HOMES = {
    "client": ("Client",),
    "application": ("Application",),
    "contract.card": ("read_card",),
    "domain.cards.writing": ("write_card",),
    "domain.errors": (
        "CancelledError",
        "InputError",
        "LimitError",
        "ModelError",
        "OutputError",
        "UsageError",
        "VoxportError",
    ),
    "domain.geometry.grid": ("Box", "Grid"),
    "domain.cards.model_card": ("ModelCard",),
    "domain.labels.label_map": ("Label", "LabelMap", "LabelTable"),
    "domain.volume": ("Volume",),
    "ports.model": ("Model",),
    "domain.run": ("Outputs", "RunOptions"),
    "entrypoints.python": ("Predictor", "load", "segment"),
    "services.segmentation.predict": ("Prediction",),
    "services.segmentation.segment": ("SegmentPorts", "Segmentation"),
    "settings": ("Settings",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
