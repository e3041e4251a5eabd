"""ONNX files of networks that are seldom met."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_network_for_four(path: Path) -> None:
    """A network that declares any size, and fails on all but ``(1, 1, 4, 4, 4)``."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [5], [1, 1, 4, 4, 4])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "a", "b", "c"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 4, 4])],
        [shape],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
