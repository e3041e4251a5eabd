"""The contract that every TensorSession keeps, as a pytest class to subclass, its networks, and a fake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ..domain.errors import InputError, ModelError
from ..ports.tensors import Tensors, TensorSession, TensorSpec, check_tensors, closed_network, joins_along
from .strategies import DTYPES


class FakeSession:
    """A TensorSession that applies a function to its inputs; ``calls`` holds the shapes of each call's inputs."""

    name, version, device = "fake", "fake 1", "cpu"

    def __init__(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], function: Callable[[Tensors], Tensors]
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.calls: list[dict[str, tuple[int, ...]]] = []
        self._function: Callable[[Tensors], Tensors] | None = function

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:
        check_tensors(self, inputs, outputs, "fake")
        if self._function is None:
            raise closed_network("fake")
        self.calls.append({name: array.shape for name, array in inputs.items()})
        found = self._function(dict(inputs))
        return {spec.name: found[spec.name].copy() for spec in self.outputs if outputs is None or spec.name in outputs}

    def close(self) -> None:
        self._function = None


def doubled(dtype: str, axes: Sequence[int | str | None] = ("n", 3)) -> FakeSession:
    """The fake of ``write_doubling_onnx``."""
    spec = TensorSpec("x", dtype, tuple(axes))
    return FakeSession([spec], [TensorSpec("y", dtype, spec.shape)], lambda given: {"y": _double(given["x"])})


def sum_and_difference() -> FakeSession:
    """The fake of ``write_sum_onnx``."""
    shape = ("n", "length")
    inputs = [TensorSpec("a", "float32", shape), TensorSpec("b", "float32", shape)]
    outputs = [TensorSpec("sum", "float32", shape), TensorSpec("difference", "float32", shape)]
    return FakeSession(inputs, outputs, lambda t: {"sum": t["a"] + t["b"], "difference": t["a"] - t["b"]})


def write_doubling_onnx(path: Path, dtype: str, axes: Sequence[int | str | None] = ("n", 3)) -> None:
    """Write a network that gives ``y = x + x``, or ``not x`` for truth values."""
    element = {"float32": "float", "float64": "double"}.get(dtype, dtype)  # ONNX's own names
    tensor = f"{element}[{', '.join('?' if axis is None else str(axis) for axis in axes)}]"
    value = "Not(x)" if dtype == "bool" else "Add(x, x)"
    _write_onnx(path, f"doubling ({tensor} x) => ({tensor} y) {{ y = {value} }}")


def write_sum_onnx(path: Path) -> None:
    """Write a network from ``a`` and ``b``, of shape (n, length), to ``sum`` and ``difference``."""
    kind = "float[n, length]"
    graph = f"sums ({kind} a, {kind} b) => ({kind} sum, {kind} difference)"
    _write_onnx(path, f"{graph} {{ sum = Add(a, b) difference = Sub(a, b) }}")


def _write_onnx(path: Path, graph: str) -> None:
    import onnx

    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {graph}'), path)


class TensorSessionContract:
    """Subclass it and fill in the two hooks; the networks are written without the adapter under test.

    ``dtypes`` are the types that the adapter takes.
    """

    dtypes: Sequence[str] = (*DTYPES, "float16", "bool")

    def open_doubling(self, folder: Path, dtype: str, axes: Sequence[int | str | None]) -> TensorSession:
        """The network of ``write_doubling_onnx``, opened by the adapter."""
        raise NotImplementedError

    def open_sum(self, folder: Path) -> TensorSession:
        """The network of ``write_sum_onnx``, opened by the adapter."""
        raise NotImplementedError

    def test_every_type_goes_in_and_comes_out(self, tmp_path: Path) -> None:
        for dtype in self.dtypes:
            session = self.open_doubling(tmp_path, dtype, ("n", 3))
            given = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
            found = session.run({"x": given})
            assert set(found) == {"y"}
            assert found["y"].dtype == given.dtype, dtype
            np.testing.assert_array_equal(found["y"], _double(given))
            assert (session.inputs[0].name, session.inputs[0].dtype) == ("x", dtype)
            assert (session.outputs[0].name, session.outputs[0].dtype) == ("y", dtype)
            session.close()

    def test_fixed_axes_differ_from_free_ones(self, tmp_path: Path) -> None:
        shape = self.open_doubling(tmp_path, "float32", ("n", 3, "width")).inputs[0].shape
        assert shape[1] == 3
        assert not isinstance(shape[0], int)
        assert not isinstance(shape[2], int)

    @pytest.mark.parametrize(("axes", "joins"), [(("n", 3), True), ((2, 3), False), ((2, "n"), False)])
    def test_calls_join_along_the_first_axis_where_it_is_free(
        self, tmp_path: Path, axes: tuple[int | str, ...], joins: bool
    ) -> None:
        assert joins_along(self.open_doubling(tmp_path, "float32", axes), 0, 0) == joins

    def test_outputs_are_selected_by_name(self, tmp_path: Path) -> None:
        session = self.open_sum(tmp_path)
        a, b = np.array([[1.0, 2.0]], np.float32), np.array([[10.0, 20.0]], np.float32)
        everything = session.run({"b": b, "a": a})
        np.testing.assert_array_equal(everything["sum"], [[11, 22]])
        np.testing.assert_array_equal(everything["difference"], [[-9, -18]])
        assert list(session.run({"a": a, "b": b}, ["difference"])) == ["difference"]

    @pytest.mark.parametrize(
        ("inputs", "outputs", "named"),
        [
            ({"a": np.zeros((1, 2), np.float32)}, None, "no b"),
            ({name: np.zeros((1, 2), np.float32) for name in "abc"}, None, "an input c"),
            ({name: np.zeros((1, 2), np.float32) for name in "ab"}, ["product"], "an output product"),
            ({"a": np.zeros((1, 2), np.float64), "b": np.zeros((1, 2), np.float32)}, None, "a: float64"),
            ({"a": np.zeros(2, np.float32), "b": np.zeros((1, 2), np.float32)}, None, r"a: float32 \(2,\)"),
        ],
        ids=["missing", "unknown", "unknown output", "type", "axes"],
    )
    def test_an_unfitting_channel_is_named(
        self, tmp_path: Path, inputs: Tensors, outputs: list[str] | None, named: str
    ) -> None:
        with pytest.raises(InputError, match=named):
            self.open_sum(tmp_path).run(inputs, outputs)

    def test_all_mismatches_are_named_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a: int64.*b: int32"):
            self.open_sum(tmp_path).run({"a": np.zeros((1, 2), np.int64), "b": np.zeros((1, 2), np.int32)})

    def test_a_fixed_axis_of_another_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"x: float32 \(1, 4\)"):
            self.open_doubling(tmp_path, "float32", ("n", 3)).run({"x": np.zeros((1, 4), np.float32)})

    def test_an_empty_batch_gives_an_empty_answer(self, tmp_path: Path) -> None:
        found = self.open_doubling(tmp_path, "float32", ("n", 3)).run({"x": np.zeros((0, 3), np.float32)})
        assert found["y"].shape == (0, 3)

    def test_answers_stay_as_they_were_while_others_are_computed(self, tmp_path: Path) -> None:
        session = self.open_doubling(tmp_path, "float32", ("n", 3))
        first = session.run({"x": np.ones((1, 3), np.float32)})["y"]
        session.run({"x": np.zeros((1, 3), np.float32)})
        np.testing.assert_array_equal(first, [[2, 2, 2]])

    def test_concurrent_callers_get_their_own_answers(self, tmp_path: Path) -> None:
        session = self.open_doubling(tmp_path, "float32", ("n", 3))
        given = [np.full((2, 3), value, np.float32) for value in range(40)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda array: session.run({"x": array})["y"], given))
        for array, answer in zip(given, found, strict=True):
            np.testing.assert_array_equal(answer, 2 * array)

    def test_arrays_in_any_memory_order_and_read_only_ones_work(self, tmp_path: Path) -> None:
        given = np.arange(6, dtype=np.float32).reshape(3, 2).T
        given.flags.writeable = False
        found = self.open_doubling(tmp_path, "float32", ("n", 3)).run({"x": given})
        np.testing.assert_array_equal(found["y"], 2 * given)

    def test_closing_twice_does_nothing_and_a_closed_network_is_a_model_error(self, tmp_path: Path) -> None:
        session = self.open_doubling(tmp_path, "float32", ("n", 3))
        session.close()
        session.close()
        with pytest.raises(ModelError, match="closed"):
            session.run({"x": np.zeros((1, 3), np.float32)})


def _double(array: NDArray[Any]) -> NDArray[Any]:
    doubled: NDArray[Any] = ~array if array.dtype == np.bool_ else array + array
    return doubled
