"""Inference with OpenVINO on CPU, in fp32 or bf16, or a quantised network in int8."""

from .library import openvino
from .runtime import OpenvinoSettings, open_openvino_runtime, open_openvino_session

__all__ = ["OpenvinoSettings", "open_openvino_runtime", "open_openvino_session", "openvino"]
