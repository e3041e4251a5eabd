"""Inference with ONNX Runtime on CPU, CUDA or TensorRT."""

from .runtime import OnnxRuntimeSettings, open_onnx_runtime, open_onnx_session

__all__ = ["OnnxRuntimeSettings", "open_onnx_runtime", "open_onnx_session"]
