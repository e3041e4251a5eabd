"""Export of PyTorch networks to ONNX, and MONAI bundles."""

from .bundle import checkpoint_from_bundle
from .exporter import TorchExporter

__all__ = ["TorchExporter", "checkpoint_from_bundle"]
