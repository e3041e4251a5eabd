"""Networks with PyTorch's fake quantisation become QDQ files with weights in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch.nn import functional
from voxport.adapters.exporters.torch.graph import check_against, write_graph
from voxport.adapters.exporters.torch.integers import store_integers

Floats = NDArray[np.float32]


class Quantised(torch.nn.Module):
    """A convolution whose input and weights are rounded to steps that are powers of two."""

    step: torch.Tensor
    zero: torch.Tensor
    steps: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, *, tensors: bool) -> None:
        super().__init__()
        self.tensors = tensors
        self.plain = torch.nn.Conv3d(1, 8, 3, padding=1)
        self.register_buffer("step", torch.tensor(2.0**-8))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("steps", 2.0 ** -torch.arange(6.0, 14.0))
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.tensors:
            x = torch.fake_quantize_per_tensor_affine(x, self.step, self.zero, 0, 255)
        else:
            x = torch.fake_quantize_per_tensor_affine(x, 2.0**-8, 0, 0, 255)
        weight = torch.fake_quantize_per_channel_affine(self.plain.weight, self.steps, self.zeros, 0, -128, 127)
        return functional.conv3d(x, weight, self.plain.bias, padding=1)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's exporter
@pytest.mark.parametrize("tensors", [True, False])
def test_fake_quantisation_is_exported_with_dynamic_axes_and_weights_in_8_bits(tmp_path: Path, tensors: bool) -> None:
    torch.manual_seed(0)
    network, path = Quantised(tensors=tensors).eval(), tmp_path / "network.onnx"
    write_graph(network, (2, 1, 16, 24, 32), path, divisors=(8, 8, 8))
    check_against(network, (1, 1, 24, 32, 16), path, dynamic=True)
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node].count("QuantizeLinear") == 1
    (weights,) = (numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) == 5)
    assert weights.dtype == np.int8
    steps = network.steps.numpy().reshape(-1, 1, 1, 1, 1)
    expected = np.clip(np.rint(network.plain.weight.detach().numpy() / steps), -128, 127)
    np.testing.assert_array_equal(weights, expected)


def quantising(weights: Floats, step: Floats, zero: NDArray[np.generic], axis: int) -> onnx.ModelProto:
    """A network that adds quantised weights to its input."""
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=axis),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    kept = [numpy_helper.from_array(a, n) for a, n in ((weights, "w"), (step, "s"), (zero, "z"))]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weights.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [0, 1])
def test_stored_integers_are_those_that_a_runtime_computes(dtype: type[np.generic], axis: int) -> None:
    rng = np.random.default_rng(axis)
    weights = rng.normal(scale=3, size=(5, 7)).astype(np.float32)
    channels = weights.shape[axis]
    step = np.asarray(rng.uniform(0.01, 0.1, channels), np.float32)
    model = quantising(weights, step, rng.integers(0, 9, channels).astype(dtype), axis)
    x = rng.normal(size=weights.shape).astype(np.float32)
    expected = run(model, x)
    store_integers(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "Add"]
    assert {tensor.name for tensor in model.graph.initializer} == {"q", "s", "z"}
    np.testing.assert_array_equal(run(model, x), expected)


def test_what_is_also_read_as_it_is_stays() -> None:
    model = quantising(np.ones((2, 3), np.float32), np.ones(2, np.float32), np.zeros(2, np.int8), 0)
    model.graph.node.append(helper.make_node("Add", ["w", "d"], ["also"]))
    store_integers(model)
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "q", "s", "z"}


def test_inputs_are_quantised_at_run_time() -> None:
    model = quantising(np.ones((2, 3), np.float32), np.ones(2, np.float32), np.zeros(2, np.int8), 0)
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (2, 3)))
    before = model.SerializeToString()
    store_integers(model)
    assert model.SerializeToString() == before
