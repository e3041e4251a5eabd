"""Equalised networks give the same values in floats, and keep small channels in int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from voxport.adapters.quantisers.onnx import OnnxQuantiser
from voxport.adapters.quantisers.onnx.equalising import equalise
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_runtime
from voxport.ports.runtime import RuntimeOptions
from voxport.testing.affine import Floats, affine_card, affine_model

# The ranges of channels differ by up to a thousand.
RANGES = np.array([100, 1, 10, 0.1], np.float32)


def unet(rank: int, random: np.random.Generator, opset: int = 18) -> onnx.ModelProto:
    """A network with a skip connection, one tensor that two convolutions read, groups, and a bias, in 2-D or 3-D."""
    kernel = (3,) * rank
    stored = {
        "first_weights": random.normal(0, 1, (4, 2, *kernel)) * RANGES.reshape(4, 1, *(1,) * rank),
        "first_bias": random.normal(0, 1, 4) * RANGES,
        "down_weights": random.normal(0, 1, (8, 4, *kernel)) / RANGES.reshape(1, 4, *(1,) * rank),
        "grouped_weights": random.normal(0, 1, (8, 2, *kernel)),
        "up_weights": random.normal(0, 1, (8, 4, *(2,) * rank)),
        "last_weights": random.normal(0, 1, (2, 8, *kernel)),
        "side_weights": random.normal(0, 1, (2, 4, *(1,) * rank)),
    }
    pads, halved = [1] * 2 * rank, [2] * rank
    nodes = [
        helper.make_node("Conv", ["image", "first_weights", "first_bias"], ["mapped"], name="first", pads=pads),
        helper.make_node("Relu", ["mapped"], ["skip"]),
        helper.make_node("Conv", ["skip", "down_weights"], ["small"], name="down", pads=pads, strides=halved),
        helper.make_node("Conv", ["small", "grouped_weights"], ["deep"], name="grouped", pads=pads, group=4),
        helper.make_node("ConvTranspose", ["deep", "up_weights"], ["up"], strides=halved),
        helper.make_node("Concat", ["up", "skip"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "last_weights"], ["last"], name="last", pads=pads),
        helper.make_node("Conv", ["skip", "side_weights"], ["side"], name="side"),
        helper.make_node("Add", ["last", "side"], ["logits"]),
    ]
    return model(nodes, stored, channels=2, rank=rank, opset=opset)


def model(
    nodes: Sequence[onnx.NodeProto], stored: Mapping[str, NDArray[Any]], *, channels: int, rank: int, opset: int = 18
) -> onnx.ModelProto:
    """A network of ``image`` and ``logits``, two of each voxel."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, count, *[None] * rank])
        for name, count in (("image", channels), ("logits", 2))
    ]
    weights = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def inferred(network: onnx.ModelProto, batch: Floats, *names: str) -> list[Floats]:
    seen = onnx.ModelProto()
    seen.CopyFrom(network)
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Floats] = session.run(names or None, {"image": batch})
    return found


def ranges_of(network: onnx.ModelProto, inputs: Sequence[Floats], names: Sequence[str]) -> list[Floats]:
    """The largest magnitude of each channel of some values."""
    seen = [inferred(network, batch, *names) for batch in inputs]
    return [np.abs(np.concatenate(each)).max(axis=(0, *range(2, each[0].ndim))) for each in zip(*seen, strict=True)]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("layers", [("first", "down", "grouped", "last", "side"), ("down", "last")])
def test_an_equalised_network_gives_the_same_and_its_channels_have_one_range(
    rank: int, layers: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(rank)
    network = unet(rank, random)
    batches = [random.normal(0, (1, 50), (8, 12, 8, 2)[4 - rank - 1 :]).astype(np.float32) for _ in range(2)]
    inputs = [np.moveaxis(batch, -1, 0)[None] for batch in batches]
    before = ranges_of(network, inputs, [node.input[0] for node in network.graph.node if node.name in layers])
    exact = [inferred(network, batch)[0] for batch in inputs]
    equalise(network, layers, {"image": inputs})
    onnx.checker.check_model(network, full_check=True)
    for batch, expected in zip(inputs, exact, strict=True):
        found = inferred(network, batch)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    after = ranges_of(network, inputs, [node.input[0] for node in network.graph.node if node.name in layers])
    for old, new in zip(before, after, strict=True):
        # the largest of each channel, but of those that are less than a quarter of the largest of all
        np.testing.assert_allclose(new[old >= old.max() / 4], old.max(), rtol=1e-4)
        assert (new[old < old.max() / 4] >= 4 * old[old < old.max() / 4] * 0.999).all()
        assert (new <= old.max() * 1.001).all()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("opset", [13, 18])  # weights by channel need 13
def test_convolutions_without_names_are_quantised_and_spared(tmp_path: Path, opset: int) -> None:
    """Those in groups have 7 % of the multiplications and those at the side 1 %, so a tenth is both."""
    random = np.random.default_rng(opset)
    network = unet(3, random, opset)
    for node in network.graph.node:
        node.name = ""
    onnx.save(network, tmp_path / "network.onnx")
    batch = random.normal(0, 1, (1, 2, 12, 8, 8)).astype(np.float32)
    found = affine_model(tmp_path / "network.onnx", affine_card(2, 2))
    counts = OnnxQuantiser().quantise(found, [batch], tmp_path / "int8.onnx", spared=(0.0, 0.1))
    exact = inferred(network, batch)[0]
    errors = []
    for count, expected in zip(counts, (5, 3), strict=True):
        quantised = onnx.load(tmp_path / "int8.onnx")
        fed = {node.output[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
        convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
        assert count == sum(node.input[0] in fed for node in convolutions) == expected
        errors.append(np.abs(inferred(quantised, batch)[0] - exact).mean() / exact.std())
    assert max(errors) < 0.1


@pytest.mark.parametrize("seen", [1.0, 0.0])
def test_a_channel_beside_a_larger_one_has_steps_of_its_own_up_to_a_quarter_of_it(tmp_path: Path, seen: float) -> None:
    """The logits are the second channel, beside one of up to 50 in steps of 0.2; its own steps are 0.05 up to 12.5.

    The calibration sees it up to 1, or not at all.
    """
    stored = {"weights": np.array([[0, 1], [0, -1]], np.float32).reshape(2, 2, 1, 1, 1)}
    nodes = [helper.make_node("Conv", ["image", "weights"], ["logits"], name="conv")]
    onnx.save(model(nodes, stored, channels=2, rank=3), tmp_path / "network.onnx")
    noise, edges = np.random.default_rng(0).random((1, 2, 8, 8, 8), np.float32), (2, 1, 1, 1)
    found = affine_model(tmp_path / "network.onnx", affine_card(2, 2))
    calibration = noise * np.array([50, seen], np.float32).reshape(edges)
    next(OnnxQuantiser().quantise(found, [calibration], tmp_path / "int8.onnx"))
    batch = noise * np.array([50, 12], np.float32).reshape(edges)
    quantised = affine_model(tmp_path / "int8.onnx", found.card)
    (by_onnx,) = inferred(onnx.load(quantised.path), batch)
    by_openvino = open_openvino_runtime(quantised, RuntimeOptions("int8"), OpenvinoSettings()).infer(batch)
    for logits in (by_onnx, by_openvino):
        # half a step, and a hundredth for the rounding of the weight
        exact = np.concatenate([batch[:, 1:], -batch[:, 1:]], axis=1)
        assert (np.abs(logits - exact) <= 0.025 + 0.01 * np.abs(exact)).all()


def test_a_tensor_that_is_read_elsewhere_too_is_read_in_floats_there(tmp_path: Path) -> None:
    """What a convolution reads in 8 bits is added in floats: with weights of zero, the logits are the image's bits."""
    stored = {"weights": np.zeros((2, 2, 1, 1, 1), np.float32)}
    nodes = [helper.make_node("Conv", ["image", "weights"], ["nothing"], name="conv")]
    nodes += [helper.make_node("Add", ["nothing", "image"], ["logits"])]
    onnx.save(model(nodes, stored, channels=2, rank=3), tmp_path / "network.onnx")
    batch = np.random.default_rng(0).random((1, 2, 8, 8, 8), np.float32)
    found = affine_model(tmp_path / "network.onnx", affine_card(2, 2))
    next(OnnxQuantiser().quantise(found, [batch], tmp_path / "int8.onnx"))
    np.testing.assert_array_equal(inferred(onnx.load(tmp_path / "int8.onnx"), batch)[0], batch)
