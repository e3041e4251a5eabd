"""Calls that share a batch get what they would get alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from voxport.domain.errors import ModelError
from voxport.ports.tensors import Tensors
from voxport.services.tensors.batching import Batcher, Batching
from voxport.testing.tensors import FakeSession, doubled, sum_and_difference

PATIENT = 10.0  # seconds; tests that fill a batch never wait for it


def _at_once(batcher: Batcher, calls: Sequence[Mapping[str, NDArray[Any]]]) -> list[Tensors | BaseException]:
    """Each call in a thread of its own, all started together."""
    begin = threading.Barrier(len(calls))

    def call(inputs: Mapping[str, NDArray[Any]]) -> Tensors | BaseException:
        begin.wait()
        try:
            return batcher(inputs)
        except ModelError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def test_calls_that_come_together_run_as_one_and_get_their_own_rows() -> None:
    session = doubled("float32")
    batcher = Batcher(session.run, Batching(max_size=8, wait_seconds=PATIENT))
    calls = [{"x": np.full((2, 3), value, np.float32)} for value in range(4)]
    answers = _at_once(batcher, calls)
    assert session.calls == [{"x": (8, 3)}]
    for inputs, answer in zip(calls, answers, strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["y"], 2 * inputs["x"])


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), max_size=st.integers(1, 8))
def test_whatever_the_sizes_each_call_gets_its_own_answer(sizes: list[int], max_size: int) -> None:
    batcher = Batcher(sum_and_difference().run, Batching(max_size=max_size, wait_seconds=0.001))
    rng = np.random.default_rng(0)
    calls = [{name: rng.random((size, 2)).astype(np.float32) for name in "ab"} for size in sizes]
    for inputs, answer in zip(calls, _at_once(batcher, calls), strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["sum"], inputs["a"] + inputs["b"])
        np.testing.assert_array_equal(answer["difference"], inputs["a"] - inputs["b"])


@given(widths=st.lists(st.integers(1, 4), min_size=2, max_size=5), max_size=st.integers(2, 12))
def test_calls_share_a_batch_along_any_axis(widths: list[int], max_size: int) -> None:
    def transposed(given: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:  # noqa: ARG001
        return {"y": given["x"].transpose(2, 0, 1)}

    batcher = Batcher(transposed, Batching(max_size=max_size, wait_seconds=0.001, input_axis=1, output_axis=2))
    rng = np.random.default_rng(0)
    calls = [{"x": rng.random((2, width, 3))} for width in widths]
    for inputs, answer in zip(calls, _at_once(batcher, calls), strict=True):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["y"], inputs["x"].transpose(2, 0, 1))


def test_no_batch_is_larger_than_it_may_be() -> None:
    session = doubled("float32")
    batcher = Batcher(session.run, Batching(max_size=4, wait_seconds=0.001))
    _at_once(batcher, [{"x": np.ones((3, 3), np.float32)} for _ in range(6)])
    assert all(call["x"][0] <= 4 for call in session.calls)
    assert sum(call["x"][0] for call in session.calls) == 18


def test_a_call_that_fills_a_batch_does_not_wait() -> None:
    session = doubled("float32")
    batcher = Batcher(session.run, Batching(max_size=4, wait_seconds=3600))
    assert batcher({"x": np.ones((4, 3), np.float32)})["y"].shape == (4, 3)
    assert batcher({"x": np.ones((9, 3), np.float32)})["y"].shape == (9, 3)


def test_calls_of_other_shapes_or_types_do_not_share_a_batch() -> None:
    session = doubled("float32", ("n", "width"))
    batcher = Batcher(session.run, Batching(max_size=4, wait_seconds=0.001))
    _at_once(batcher, [{"x": np.ones((1, width), np.float32)} for width in (2, 3)])
    assert sorted(call["x"] for call in session.calls) == [(1, 2), (1, 3)]


def test_a_call_that_fails_fails_alone() -> None:
    def run(inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:  # noqa: ARG001
        if (inputs["x"] < 0).any():
            raise ModelError("m", expected="no negative values", got="one", do="send others")
        return {"y": 2 * inputs["x"]}

    batcher = Batcher(run, Batching(max_size=3, wait_seconds=PATIENT))
    calls = [{"x": np.full((1, 2), value, np.float32)} for value in (1, -1, 3)]
    first, second, third = _at_once(batcher, calls)
    assert isinstance(second, ModelError)
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    np.testing.assert_array_equal(first["y"], [[2, 2]])
    np.testing.assert_array_equal(third["y"], [[6, 6]])


@pytest.mark.parametrize("inputs", [{"a": (1, 2), "b": (2, 2)}, {"a": (0, 2), "b": (0, 2)}, {"a": (), "b": ()}])
def test_inputs_without_a_common_number_of_rows_run_alone(inputs: dict[str, tuple[int, ...]]) -> None:
    seen: list[dict[str, tuple[int, ...]]] = []

    def run(given: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:  # noqa: ARG001
        seen.append({name: array.shape for name, array in given.items()})
        return {}

    Batcher(run, Batching(wait_seconds=3600))({name: np.zeros(shape) for name, shape in inputs.items()})
    assert seen == [inputs]


def test_a_network_that_gives_other_rows_than_it_takes_answers_each_call_alone() -> None:
    fake = doubled("float32")
    session = FakeSession(fake.inputs, fake.outputs, lambda given: {"y": given["x"].mean(axis=0, keepdims=True)})
    batcher = Batcher(session.run, Batching(max_size=2, wait_seconds=PATIENT))
    answers = _at_once(batcher, [{"x": np.full((1, 3), value, np.float32)} for value in (1, 5)])
    assert [float(answer["y"][0, 0]) for answer in answers if isinstance(answer, dict)] == [1, 5]
