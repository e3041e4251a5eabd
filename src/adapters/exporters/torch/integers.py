"""Networks with PyTorch's fake quantisation: how they are traced, and weights stored as the integers they round to."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    import torch

# torch 2.13 cannot tell their shapes: tracing with dynamic axes fails.
_WITHOUT_SHAPES = (
    "aten::fake_quantize_per_tensor_affine_cachemask",
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "aten::fake_quantize_per_channel_affine_cachemask",
)


def make_fake_quantisation_traceable() -> None:
    """Tell torch the shapes of its fake quantisation, for the whole process. Without effect where it knows them."""
    import torch

    def shapes(x: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)

    for name in _WITHOUT_SHAPES:
        with suppress(RuntimeError):  # it has them already
            torch.library.register_fake(name, shapes)


def store_integers(model: onnx.ModelProto) -> None:
    """Replace each initializer that is quantised before its use by the integers, in place.

    Runtimes compute the same integers on loading, so results stay the same. Initializers that are also inputs, and
    those quantised in blocks, stay.

    Args:
        model: a valid model; it stays valid.
    """
    import onnx

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.input:
        tensors.pop(value.name, None)
    for node in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if len(node.input) < 3 or attributes.get("block_size", 0) or not all(name in tensors for name in node.input):
            continue
        values, step, zero = (onnx.numpy_helper.to_array(tensors[name]) for name in node.input)
        if zero.dtype not in (np.int8, np.uint8):
            continue
        along = [1] * values.ndim
        along[attributes.get("axis", 1)] = -1
        step, zero = (each.reshape(along) if each.ndim else each for each in (step, zero))
        limits = np.iinfo(zero.dtype)
        integers = np.clip(np.rint(values / step) + zero, limits.min, limits.max).astype(zero.dtype)
        graph.initializer.append(onnx.numpy_helper.from_array(integers, node.output[0]))
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for name, tensor in tensors.items():
        if name not in read:
            graph.initializer.remove(tensor)
