"""Inference with ONNX Runtime on CPU, CUDA or TensorRT."""

import os

# ONNX Runtime 1.31 reports sessions to its makers a few seconds after it is imported; only this, before, keeps it quiet
# (disable_telemetry_events does not).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from .runtime import OnnxRuntimeSettings, open_onnx_runtime, open_onnx_session

__all__ = ["OnnxRuntimeSettings", "open_onnx_runtime", "open_onnx_session"]
