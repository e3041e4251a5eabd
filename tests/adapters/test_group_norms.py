"""Group normalisation is rewritten without reshapes, wherever it can be recognised for sure, and gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from voxport.adapters.group_norms import LARGEST_RATIO, RATIO, read_without_reshapes, rewrite_group_norms
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_session
from voxport.ports.tensors import SessionOptions

EPSILON = 1e-5


def expected(image: NDArray[Any], groups: int, scale: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    """Return the group normalisation of (N, C, ...) in float64."""
    whole = image.astype(np.float64).reshape(image.shape[0], groups, -1)
    mean, variance = whole.mean(-1, keepdims=True), whole.var(-1, keepdims=True)
    by_channel = (1, -1, *(1,) * (image.ndim - 2))
    normal = ((whole - mean) / np.sqrt(variance + EPSILON)).reshape(image.shape)
    result: NDArray[Any] = normal * scale.reshape(by_channel) + bias.reshape(by_channel)
    return result


def network(
    *,
    groups: int = 2,
    channels: int = 4,
    spatial: Sequence[Any] = ("x", "y", "z"),
    grouped: Sequence[int] | None = None,
    back: Sequence[int] | None = None,
    affine: bool = True,
    also: str | None = None,
    kind: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return Relu, then a group normalisation as exporters write it, then Relu.

    ``grouped`` and ``back`` are constant shapes of the two Reshapes; ``also`` is a value that is an output too.
    """
    rng = np.random.default_rng(0)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensors = {
        "grouped": np.array(grouped or (0, groups, -1)),
        "ones": np.ones(groups, dtype),
        "zeros": np.zeros(groups, dtype),
        "gamma": rng.normal(size=(channels, *(1,) * len(spatial))).astype(dtype),
        "beta": rng.normal(size=(channels, *(1,) * len(spatial))).astype(dtype),
    }
    nodes = [
        helper.make_node("Relu", ["image"], ["x"]),
        helper.make_node("Reshape", ["x", "grouped"], ["split"]),
        helper.make_node("InstanceNormalization", ["split", "ones", "zeros"], ["normal"], epsilon=EPSILON),
        helper.make_node("Reshape", ["normal", "shape"], ["joined"]),
    ]
    if back is None:
        nodes.insert(1, helper.make_node("Shape", ["x"], ["shape"]))
    else:
        tensors["shape"] = np.array(back)
    last = "joined"
    if affine:
        nodes.append(helper.make_node("Mul", ["joined", "gamma"], ["scaled"]))
        nodes.append(helper.make_node("Add", ["beta", "scaled"], ["shifted"]))
        last = "shifted"
    nodes.append(helper.make_node("Relu", [last], ["logits"]))
    shape: list[Any] = ["n", channels, *spatial]
    outputs = [helper.make_tensor_value_info("logits", kind, [None] * len(shape))]
    if also is not None:
        outputs.append(helper.make_tensor_value_info(also, kind, [None] * (3 if also == "split" else len(shape))))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", kind, shape)],
        outputs,
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def one_node(groups: int = 2, channels: int = 4) -> onnx.ModelProto:
    """Return ONNX's own GroupNormalization."""
    rng = np.random.default_rng(0)
    tensors = {"gamma": rng.normal(size=channels), "beta": rng.normal(size=channels)}
    norm = ["image", "gamma", "beta"]
    shape: list[Any] = ["n", channels, "x", "y", "z"]
    graph = helper.make_graph(
        [helper.make_node("GroupNormalization", norm, ["logits"], num_groups=groups, epsilon=EPSILON)],
        "network",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: onnx.ModelProto, image: NDArray[Any], *outputs: str) -> Any:
    """Return the logits, or some outputs."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(outputs or ["logits"], {"image": image})
    return results if outputs else results[0]


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
    st.lists(st.integers(2, 6), min_size=2, max_size=3),
    st.sampled_from([0.0, 5.0, 300.0]),
    st.booleans(),
)
def test_the_same_values_come_out_for_any_groups_sizes_and_brightness(
    edges: tuple[int, int, int], spatial: list[int], offset: float, affine: bool
) -> None:
    cases, groups, size = edges
    axes = ["x", "y", "z"][: len(spatial)]
    model = network(groups=groups, channels=groups * size, spatial=axes, affine=affine)
    assert rewrite_group_norms(model, with_ratio=True) == 1
    assert kinds(model).isdisjoint({"Reshape", "InstanceNormalization"})
    image = np.random.default_rng(1).random((cases, groups * size, *spatial), np.float32) + np.float32(offset)
    named = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in network(groups=groups, channels=groups * size).graph.initializer
    }
    scale, bias = (named["gamma"], named["beta"]) if affine else (np.ones(groups * size), np.zeros(groups * size))
    right = np.maximum(expected(image, groups, scale.ravel(), bias.ravel()), 0)
    found, ratio = run(model, image, "logits", RATIO)
    whole = image.astype(np.float64).reshape(cases, groups, size, -1)
    variance = whole.reshape(cases, groups, -1).var(-1)[..., None] + EPSILON
    right_ratio = (whole.mean(-1) ** 2 / variance).max()
    if right_ratio <= LARGEST_RATIO:
        np.testing.assert_allclose(ratio, right_ratio, rtol=1e-3)
        np.testing.assert_allclose(found, right, atol=2e-5 * (1 + offset))
    else:
        assert ratio > LARGEST_RATIO * 0.99
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(network(groups=groups, channels=groups * size, spatial=axes, affine=affine), path)
        session = open_openvino_session(path, SessionOptions(), OpenvinoSettings())
        found = session.run({"image": image})["logits"]
    np.testing.assert_allclose(found, right, atol=2e-5 * (1 + offset))


def test_the_operator_of_onnx_is_rewritten_too() -> None:
    model, image = one_node(), np.random.default_rng(1).random((2, 4, 5, 6, 7), np.float32)
    before = run(model, image)
    assert rewrite_group_norms(model) == 1
    assert "GroupNormalization" not in kinds(model)
    np.testing.assert_allclose(run(model, image), before, atol=1e-5)


def test_fixed_shapes_are_rewritten() -> None:
    model = network(spatial=(4, 5, 6), grouped=(0, 2, -1), back=(0, 4, 4, 5, 6))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    before = run(network(spatial=(4, 5, 6), grouped=(0, 2, -1), back=(0, 4, 4, 5, 6)), image := _image((2, 4, 4, 5, 6)))
    assert rewrite_group_norms(model) == 1
    np.testing.assert_allclose(run(model, image), before, atol=1e-5)


def _image(shape: Sequence[int]) -> NDArray[np.float32]:
    return np.random.default_rng(1).random(tuple(shape), np.float32)


@pytest.mark.parametrize(
    "model",
    [
        network(also="joined"),
        network(also="split"),
        network(grouped=(2, 2, -1)),
        network(spatial=(4, 4, 6), back=(0, 4, 4, 6, 4)),
        network(kind=onnx.TensorProto.FLOAT16),
        one_node(groups=3, channels=4),
    ],
    ids=["joined is an output", "split is an output", "fixed cases", "other axes", "float16", "uneven groups"],
)
def test_what_is_not_recognised_for_sure_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    found = rewrite_group_norms(model)
    if "joined" in [value.name for value in model.graph.output]:
        assert found == 1  # up to the value that is used elsewhere
        assert "Mul" in [node.op_type for node in model.graph.node if node.input[0] == "joined"]
    else:
        assert (found, model.SerializeToString()) == (0, before)


@pytest.mark.parametrize("noise", [0, 0.001, 0.01, 0.3])
@pytest.mark.parametrize("plane", [(8, 128, 64), (2, 512, 512)])
def test_openvino_normalises_images_of_any_contrast(tmp_path: Path, plane: tuple[int, ...], noise: float) -> None:
    onnx.save(network(groups=4, channels=4), tmp_path / "model.onnx")
    session = open_openvino_session(tmp_path / "model.onnx", SessionOptions(), OpenvinoSettings())
    assert [spec.name for spec in session.outputs] == ["logits"]
    rng = np.random.default_rng(0)
    # each channel is a group, with its own brightness
    image = rng.uniform(0.5, 1.5, (1, 4, 1, 1, 1)) * (1 + noise * rng.standard_normal((1, 4, *plane)))
    image = image.astype(np.float32).clip(0)
    named = {t.name: numpy_helper.to_array(t).ravel() for t in network(groups=4, channels=4).graph.initializer}
    right = np.maximum(expected(image, 4, named["gamma"], named["beta"]), 0)
    found = session.run({"image": image})
    assert list(found) == ["logits"]
    # a constant map is its bias, and 300 times the rounding of its mean
    np.testing.assert_allclose(found["logits"], right, atol=1e-3 if noise else 1e-2)


def test_openvino_names_outputs_as_the_file_does(tmp_path: Path) -> None:
    """The second Reshape of one channel does nothing, so OpenVINO gives its result the name of the last Relu too."""
    onnx.save(network(groups=1, channels=1, affine=False), tmp_path / "model.onnx")
    session = open_openvino_session(tmp_path / "model.onnx", SessionOptions(), OpenvinoSettings())
    # the second is constant, so it is inferred as stored
    for image in (_image((1, 1, 4, 4, 4)), np.ones((1, 1, 4, 4, 4), np.float32)):
        assert list(session.run({"image": image})) == ["logits"] == [spec.name for spec in session.outputs]


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_file_that_cannot_be_read_is_left_to_the_runtime(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    assert read_without_reshapes(tmp_path / "model.onnx") is None


def test_a_network_without_group_normalisation_is_left_as_it_is(tmp_path: Path) -> None:
    model = network()
    nodes = [helper.make_node("InstanceNormalization", ["image", "gamma", "beta"], ["logits"])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name in ("gamma", "beta"):
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        tensor.dims[:] = [4]
    onnx.save(model, tmp_path / "model.onnx")
    assert read_without_reshapes(tmp_path / "model.onnx") is None
