"""Foreign ONNX files with several outputs: the right one is taken in either runtime, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_runtime
from voxport.domain.errors import ModelError
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.testing.affine import affine_card, affine_model

IMAGE = np.random.default_rng(0).random((1, 1, 4, 8, 12)).astype(np.float32)


def write(path: Path, outputs: Sequence[tuple[str, float, int]]) -> None:
    """Output k is ``[x + k, -x - k]`` at every voxel, or at each second along z."""
    nodes, given, constants = [], [], []
    for name, shift, step in outputs:
        constants += [
            onnx.numpy_helper.from_array(np.array([1, -1], np.float32).reshape(2, 1, 1, 1, 1), f"{name}.w"),
            onnx.numpy_helper.from_array(np.array([shift, -shift], np.float32), f"{name}.b"),
        ]
        full = name if step == 1 else f"{name}.full"
        nodes.append(helper.make_node("Conv", ["image", f"{name}.w", f"{name}.b"], [full]))
        if step > 1:
            nodes.append(helper.make_node("MaxPool", [full], [name], kernel_shape=[1, 1, step], strides=[1, 1, step]))
        given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "i", "j", f"k{step}"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "i", "j", "k1"])
    graph = helper.make_graph(nodes, "g", [image], given, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture(params=["onnx", "openvino"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def open_network(outputs: Sequence[tuple[str, float, int]], tensor: str | None = None) -> InferenceRuntime:
        write(tmp_path / "n.onnx", outputs)
        card = affine_card(1, 2)
        model = affine_model(tmp_path / "n.onnx", replace(card, output=replace(card.output, tensor=tensor)))
        if request.param == "onnx":
            return open_onnx_runtime(model, RuntimeOptions(), OnnxRuntimeSettings(threads=1))
        return open_openvino_runtime(model, RuntimeOptions(), OpenvinoSettings(threads=1))

    return open_network


def shift_of(runtime: InferenceRuntime) -> float:
    """Which output it is, by every voxel; asked twice."""
    for _ in range(2):
        logits = runtime.infer(IMAGE)
    shift = float(np.round(logits[0, 0, 0, 0, 0] - IMAGE[0, 0, 0, 0, 0]))
    np.testing.assert_allclose(logits, np.concatenate([IMAGE + shift, -IMAGE - shift], 1), atol=1e-5)
    return shift


@pytest.mark.parametrize(
    ("outputs", "shift"),
    [
        ([("only", 3, 1)], 3),
        ([("full", 3, 1), ("half", 1, 2), ("quarter", 2, 4)], 3),
        ([("quarter", 1, 4), ("half", 2, 2), ("full", 3, 1)], 3),
    ],
)
def test_the_only_output_of_the_images_size_is_taken(
    opened: Any, outputs: Sequence[tuple[str, float, int]], shift: float
) -> None:
    assert shift_of(opened(outputs)) == shift


@pytest.mark.parametrize(
    ("outputs", "listed"),
    [
        ([("main", 1, 1), ("aux", 2, 1)], r"2 of them in: 0 main \(1, 2, 4, 8, 12\), 1 aux \(1, 2, 4, 8, 12\)"),
        ([("a", 1, 2), ("b", 2, 4)], r"0 of them in: 0 a \(1, 2, 4, 8, 6\), 1 b \(1, 2, 4, 8, 3\)"),
    ],
)
def test_several_or_none_are_refused_with_a_list(
    opened: Any, outputs: Sequence[tuple[str, float, int]], listed: str
) -> None:
    with pytest.raises(ModelError, match=listed):
        opened(outputs).infer(IMAGE)


@pytest.mark.parametrize(("tensor", "shift"), [("main", 1), ("aux", 2), ("0", 1), ("1", 2)])
def test_the_card_names_one_by_its_name_or_index(opened: Any, tensor: str, shift: float) -> None:
    assert shift_of(opened([("main", 1, 1), ("aux", 2, 1)], tensor)) == shift


@pytest.mark.parametrize("tensor", ["2", "seg"])
def test_a_name_that_the_network_has_not_is_refused_when_it_is_opened(opened: Any, tensor: str) -> None:
    with pytest.raises(ModelError, match=rf"expected one of the outputs main: .*, aux: .*, got {tensor}; correct"):
        opened([("main", 1, 1), ("aux", 2, 1)], tensor)
