"""OnnxRuntime keeps the InferenceRuntime contract, and refuses what it cannot load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.domain.errors import ModelError, UsageError
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.testing.affine import Floats, affine_card, affine_model, write_affine_onnx
from voxport.testing.runtime import RuntimeContract

from tests.odd_networks import write_network_for_four
from tests.trap import set_trap

Inputs = list[tuple[str, int, list[str | int | None]]]


def _opened(path: Path, channels: int = 1, **settings: object) -> InferenceRuntime:
    model = affine_model(path, affine_card(channels, 2))
    return open_onnx_runtime(model, RuntimeOptions(), OnnxRuntimeSettings(**settings))  # type: ignore[arg-type]


class TestOnnxRuntime(RuntimeContract):
    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        path = folder / "affine.onnx"
        write_affine_onnx(path, weights, bias)
        model = affine_model(path, affine_card(weights.shape[1], weights.shape[0]))
        return open_onnx_runtime(model, options, OnnxRuntimeSettings())


class TestOnnxRuntimeWithACachedGraph(RuntimeContract):
    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        path = folder / "affine.onnx"
        write_affine_onnx(path, weights, bias)
        model = affine_model(path, affine_card(weights.shape[1], weights.shape[0]))
        settings = OnnxRuntimeSettings(cache=folder / "cache")
        open_onnx_runtime(model, options, settings).close()
        return open_onnx_runtime(model, options, settings)


def test_the_optimised_graph_is_cached_once_for_each_model(tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    write_affine_onnx(first, np.eye(2, 1, dtype=np.float32), np.zeros(2, np.float32))
    write_affine_onnx(second, 2 * np.eye(2, 1, dtype=np.float32), np.zeros(2, np.float32))
    cache = tmp_path / "cache"
    for path in (first, first, second):
        _opened(path, cache=cache)
    assert [p.suffix for p in cache.iterdir()] == [".onnx", ".onnx"]


def _save(path: Path, node: onnx.NodeProto, inputs: Inputs, rank: int = 5) -> None:
    dims: list[str | int | None] = ["n", *("abcd"[: rank - 1])]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize(
    ("inputs", "node"),
    [
        ([("x", TensorProto.FLOAT, ["n", 1, "a", "b"])], helper.make_node("Relu", ["x"], ["y"])),
        (
            [("x", TensorProto.FLOAT16, ["n", 1, "a", "b", "c"])],
            helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT),
        ),
        (
            [("x", TensorProto.FLOAT, ["n", 1, "a", "b", "c"]), ("z", TensorProto.FLOAT, ["n", 1, "a", "b", "c"])],
            helper.make_node("Add", ["x", "z"], ["y"]),
        ),
    ],
    ids=["rank 4", "float16", "two inputs"],
)
def test_a_network_with_another_kind_of_input_is_refused(tmp_path: Path, inputs: Inputs, node: onnx.NodeProto) -> None:
    path = tmp_path / "odd.onnx"
    _save(path, node, inputs, rank=len(inputs[0][2]))
    with pytest.raises(ModelError, match="one float32 input") as caught:
        _opened(path)
    assert "x: float" in caught.value.got


def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx") as caught:
        _opened(path)
    assert "\n" not in str(caught.value)


def test_fixed_axes_are_declared_and_kept_to(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    _save(path, helper.make_node("Relu", ["x"], ["y"]), [("x", TensorProto.FLOAT, ["n", 1, 8, 16, 4])])
    runtime = _opened(path)
    assert runtime.input_shape == (None, 1, 8, 16, 4)
    with pytest.raises(ModelError, match="any, 1, 8, 16, 4"):
        runtime.infer(np.zeros((1, 1, 8, 8, 4), np.float32))


def test_a_network_that_fails_on_a_batch_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "reshape.onnx"
    write_network_for_four(path)
    with pytest.raises(ModelError, match="patch and divisor") as caught:
        _opened(path).infer(np.zeros((1, 1, 3, 4, 4), np.float32))
    assert "\n" not in str(caught.value)


def test_a_provider_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "affine.onnx"
    write_affine_onnx(path, np.eye(2, 1, dtype=np.float32), np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="CPUExecutionProvider"):
        _opened(path, providers=["NoSuchExecutionProvider"])


@pytest.mark.parametrize("level", ["none", "basic", "extended", "all"])
def test_every_graph_level_and_the_arena_score_the_same(tmp_path: Path, level: str) -> None:
    path = tmp_path / "affine.onnx"
    weights = np.array([[2.0], [-1.0]], np.float32)
    write_affine_onnx(path, weights, np.zeros(2, np.float32))
    batch = np.ones((1, 1, 2, 3, 4), np.float32)
    logits = _opened(path, graph_level=level, arena=True, threads=1).infer(batch)
    np.testing.assert_array_equal(logits[0, :, 0, 0, 0], [2.0, -1.0])


def test_the_runtime_reports_to_nobody() -> None:
    """ONNX Runtime 1.31 by itself calls its makers about nine seconds after it was imported."""
    code = "import voxport.adapters.runtimes.onnx, time\ntime.sleep(13)"
    with set_trap() as trap:
        subprocess.run([sys.executable, "-c", code], env=os.environ | trap.env, check=True)
    assert trap.caught == []


def test_the_reason_of_onnx_runtime_is_the_sentence_that_matters(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name-" * 15)
    folder.mkdir()
    write_affine_onnx(folder / "m.onnx", np.ones((2, 1), np.float32), np.zeros(2, np.float32))
    model = onnx.load(folder / "m.onnx")
    model.ir_version = 99
    onnx.save(model, folder / "m.onnx")
    with pytest.raises(ModelError, match="Unsupported model IR version: 99") as caught:
        _opened(folder / "m.onnx")
    assert "a-long-name" not in str(caught.value)
    assert len(caught.value.got) < 200
