"""BentoML's model store, with the self-describing ONNX file of each model inside its BentoML model."""

from .library import untracked_bentoml
from .store import BentoStore
from .tensors import BentoTensorModels

__all__ = ["BentoStore", "BentoTensorModels", "untracked_bentoml"]
