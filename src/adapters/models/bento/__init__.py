"""BentoML's model store, with a self-describing ONNX file in each BentoML model."""

from .library import untracked_bentoml
from .store import BentoStore
from .tensors import BentoTensorModels

__all__ = ["BentoStore", "BentoTensorModels", "untracked_bentoml"]
