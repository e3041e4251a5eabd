"""Scoring with OpenVINO on CPU, in fp32 or bf16, or a quantised network in int8."""

from .library import openvino
from .runtime import OpenvinoRuntime, OpenvinoSettings, open_openvino_runtime

__all__ = ["OpenvinoRuntime", "OpenvinoSettings", "open_openvino_runtime", "openvino"]
