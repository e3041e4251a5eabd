"""Sessions on named tensors: ONNX Runtime, OpenVINO and the fake keep one contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_session
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_session
from voxport.domain.errors import InputError, ModelError
from voxport.ports.tensors import SessionOptions, TensorSession, TensorSpec, joins_along
from voxport.testing.tensors import (
    FakeSession,
    TensorSessionContract,
    doubled,
    sum_and_difference,
    write_doubling_onnx,
    write_sum_onnx,
)

ONE_THREAD = SessionOptions(threads=1)


class TestFakeSession(TensorSessionContract):
    def open_doubling(self, folder: Path, dtype: str, axes: Sequence[int | str | None]) -> TensorSession:  # noqa: ARG002
        return doubled(dtype, axes)

    def open_sum(self, folder: Path) -> TensorSession:  # noqa: ARG002
        return sum_and_difference()


class TestOnnxSession(TensorSessionContract):
    # ONNX Runtime has no kernel that adds integers of 16 bits or unsigned ones of 8 bits
    dtypes = ("float16", "float32", "float64", "int32", "int64", "uint32", "uint64", "int8", "uint8", "bool")

    def open_doubling(self, folder: Path, dtype: str, axes: Sequence[int | str | None]) -> TensorSession:
        write_doubling_onnx(folder / "doubling.onnx", dtype, axes)
        return open_onnx_session(folder / "doubling.onnx", ONE_THREAD, OnnxRuntimeSettings())

    def open_sum(self, folder: Path) -> TensorSession:
        write_sum_onnx(folder / "sum.onnx")
        return open_onnx_session(folder / "sum.onnx", ONE_THREAD, OnnxRuntimeSettings())


class TestOpenvinoSession(TensorSessionContract):
    def open_doubling(self, folder: Path, dtype: str, axes: Sequence[int | str | None]) -> TensorSession:
        write_doubling_onnx(folder / "doubling.onnx", dtype, axes)
        return open_openvino_session(folder / "doubling.onnx", ONE_THREAD, OpenvinoSettings())

    def open_sum(self, folder: Path) -> TensorSession:
        write_sum_onnx(folder / "sum.onnx")
        return open_openvino_session(folder / "sum.onnx", ONE_THREAD, OpenvinoSettings())


def _text_model(path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "text", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_text_goes_through_onnx_runtime(tmp_path: Path) -> None:
    _text_model(tmp_path / "text.onnx")
    session = open_onnx_session(tmp_path / "text.onnx", ONE_THREAD, OnnxRuntimeSettings())
    assert session.inputs == (TensorSpec("x", "str", ("n",)),)
    assert list(session.run({"x": np.array(["vein", "Blut"], object)})["y"]) == ["vein", "Blut"]


def test_openvino_refuses_text_and_names_the_runtime_that_takes_it(tmp_path: Path) -> None:
    _text_model(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="use the onnx runtime"):
        open_openvino_session(tmp_path / "text.onnx", ONE_THREAD, OpenvinoSettings())


def test_axes_of_one_name_have_one_size(tmp_path: Path) -> None:
    write_sum_onnx(tmp_path / "sum.onnx")
    session = open_onnx_session(tmp_path / "sum.onnx", ONE_THREAD, OnnxRuntimeSettings())
    with pytest.raises(InputError, match=r"b: float32 \(1, 3\)"):
        session.run({"a": np.zeros((1, 2), np.float32), "b": np.zeros((1, 3), np.float32)})


def test_outputs_that_do_not_share_the_inputs_first_axis_do_not_join() -> None:
    spec = TensorSpec("x", "float32", ("n", 2))
    pooled = FakeSession([spec], [TensorSpec("y", "float32", (1, 2))], lambda given: {"y": given["x"].mean(0)[None]})
    assert not joins_along(pooled, 0, 0)
