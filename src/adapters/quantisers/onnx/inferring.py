"""Infer networks in memory with ONNX Runtime, also values within them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray


def silent() -> Any:
    """Return options of a session that logs nothing."""
    options: Any = ort.SessionOptions()
    options.log_severity_level = 4
    return options


def infer(
    network: onnx.ModelProto, inputs: dict[str, NDArray[np.float32]], nodes: Sequence[onnx.NodeProto] = ()
) -> list[NDArray[Any]]:
    """Return the outputs of a network; or, of nodes added to it, those outputs that are read by none of them."""
    measured = onnx.ModelProto()
    measured.CopyFrom(network)
    measured.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    wanted = [name for node in nodes for name in node.output if name not in read]
    measured.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = ort.InferenceSession(measured.SerializeToString(), silent(), providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(wanted or None, inputs)
    return found
