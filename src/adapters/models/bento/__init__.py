"""BentoML's model store, with the self-describing ONNX file of each model inside its BentoML model."""

from .library import untracked_bentoml
from .store import BentoStore

__all__ = ["BentoStore", "untracked_bentoml"]
