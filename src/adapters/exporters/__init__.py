"""Exporters of trained networks to ONNX."""
