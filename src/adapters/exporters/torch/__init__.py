"""Exports PyTorch networks to ONNX; reads MONAI bundles."""

from .bundle import checkpoint_from_bundle
from .exporter import TorchExporter

__all__ = ["TorchExporter", "checkpoint_from_bundle"]
