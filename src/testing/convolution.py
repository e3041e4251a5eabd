"""A small convolutional network with an asymmetric kernel, so results depend on neighbours and orientation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_convolution_onnx(
    path: Path, *, classes: int = 2, channels: int = 1, radius: int = 1, fixed: Sequence[int] | None = None
) -> None:
    """Write ONNX: one convolution with random weights, ``2 * radius + 1`` wide and zero-padded.

    Args:
        path: the file to write.
        classes: number of output channels.
        channels: number of input channels.
        radius: context in voxels on each side.
        fixed: fixed spatial shape; dynamic if None.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.RandomState(7)
    edge = 2 * radius + 1
    kernel = random.standard_normal((classes, channels, edge, edge, edge)).astype(np.float32)
    kernel -= kernel.mean(axis=(1, 2, 3, 4), keepdims=True)
    space = list(fixed) if fixed is not None else ["i", "j", "k"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel"], ["scores"], pads=[radius] * 6)],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, *space])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes, *space])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
