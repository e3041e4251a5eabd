"""Scoring with ONNX Runtime on CPU, CUDA or TensorRT."""

from .runtime import OnnxRuntime, OnnxRuntimeSettings, open_onnx_runtime

__all__ = ["OnnxRuntime", "OnnxRuntimeSettings", "open_onnx_runtime"]
