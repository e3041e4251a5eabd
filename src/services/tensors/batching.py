"""Adaptive batching: calls that come at the same time run as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ports.tensors import Tensors

Run = Callable[[Mapping[str, NDArray[Any]], Sequence[str] | None], Tensors]


@dataclass(frozen=True)
class Batching:
    """How calls to a model share a batch: up to ``max_size`` rows, waiting ``wait_seconds`` for others.

    Rows lie along ``input_axis`` of every input and ``output_axis`` of every output.
    """

    max_size: int = 32
    wait_seconds: float = 0.005
    input_axis: int = 0
    output_axis: int = 0


@dataclass
class _Group:
    """Calls that will run together. The thread of the first one runs them all."""

    calls: list[tuple[Mapping[str, NDArray[Any]], int]] = field(default_factory=list)
    answers: list[Tensors | BaseException] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.calls)


class Batcher:
    """Joins concurrent calls along the batch axis, and gives each its own rows back. Safe for several threads.

    A call joins others of the same names, types and remaining axes; calls that come while a batch runs share the next
    one. Where the joined batch fails, each call runs by itself, so that no call fails for another's inputs.
    """

    def __init__(self, run: Run, batching: Batching) -> None:
        self._run = run
        self._batching = batching
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._open: dict[object, _Group] = {}

    def __call__(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:
        """The outputs for these inputs, as if they were alone. All inputs have the same number of rows."""
        axis = self._batching.input_axis
        rows = {_rows(array, axis) for array in inputs.values()}
        if len(rows) != 1 or not 0 < (size := rows.pop()) < self._batching.max_size:
            return self._run(inputs, outputs)
        others = ((name, a.dtype.str, a.shape[:axis], a.shape[axis + 1 :]) for name, a in sorted(inputs.items()))
        key = (tuple(outputs or ()), *others)
        group, position = self._join(key, inputs, size)
        if position == 0:
            group.full.wait(self._batching.wait_seconds)
            with self._running:
                with self._lock:
                    if self._open.get(key) is group:
                        del self._open[key]
                self._run_group(group, outputs)
        group.done.wait()
        answer = group.answers[position]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _join(self, key: object, inputs: Mapping[str, NDArray[Any]], size: int) -> tuple[_Group, int]:
        with self._lock:
            group = self._open.get(key)
            if group is None or group.rows + size > self._batching.max_size:
                if group is not None:
                    group.full.set()
                group = self._open[key] = _Group()
            group.calls.append((inputs, size))
            if group.rows == self._batching.max_size:
                group.full.set()
                del self._open[key]
            return group, len(group.calls) - 1

    def _run_group(self, group: _Group, outputs: Sequence[str] | None) -> None:
        calls = [inputs for inputs, _ in group.calls]
        try:
            if len(calls) == 1:
                group.answers = [self._attempt(calls[0], outputs)]
                return
            taken, given = self._batching.input_axis, self._batching.output_axis
            joined = {name: np.concatenate([inputs[name] for inputs in calls], taken) for name in calls[0]}
            found = self._attempt(joined, outputs)
            if isinstance(found, BaseException) or any(_rows(array, given) != group.rows for array in found.values()):
                group.answers = [self._attempt(inputs, outputs) for inputs in calls]
                return
            ends = np.cumsum([size for _, size in group.calls])[:-1]
            pieces = {name: np.split(array, ends, given) for name, array in found.items()}
            group.answers = [{name: pieces[name][i] for name in pieces} for i in range(len(calls))]
        finally:
            group.done.set()

    def _attempt(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None) -> Tensors | BaseException:
        try:
            return self._run(inputs, outputs)
        except Exception as error:  # noqa: BLE001 - raised again by the call that it belongs to
            return error


def _rows(array: NDArray[Any], axis: int) -> int:
    return array.shape[axis] if axis < array.ndim else 0
