"""One resident ONNX Runtime session; sessions are safe for concurrent callers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ....domain.errors import ModelError, UsageError
from ....ports.model import Model
from ....ports.runtime import (
    NetworkShape,
    RuntimeOptions,
    check_batch,
    closed_network,
    failed_on,
    no_memory_for,
    wrong_inputs,
)

_GRAPH_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass(frozen=True)
class OnnxRuntimeSettings:
    """How sessions are made.

    ``providers`` are tried in order, each with its options; ``cache`` is a folder for optimised graphs, keyed by the
    model's hash, the runtime's version and everything that shapes the graph.
    """

    providers: Sequence[str] = ("CPUExecutionProvider",)
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    threads: int | None = None
    arena: bool = False
    graph_level: str = "all"
    cache: Path | None = None


class OnnxRuntime:
    """InferenceRuntime over one session."""

    def __init__(self, session: Any, subject: str) -> None:
        self._session = session
        self._subject = subject
        self._input = _checked_input(session, subject)
        self._output = session.get_outputs()[0].name
        self._device = str(session.get_providers()[0].removesuffix("ExecutionProvider")).lower()

    @property
    def name(self) -> str:
        """See InferenceRuntime."""
        return "onnx"

    @property
    def version(self) -> str:
        """See InferenceRuntime."""
        return f"onnxruntime {ort.__version__}"

    @property
    def device(self) -> str:
        """See InferenceRuntime."""
        return self._device

    @property
    def precision(self) -> str:
        """See InferenceRuntime."""
        return "fp32"

    @property
    def input_shape(self) -> NetworkShape:
        """See InferenceRuntime."""
        n, c, x, y, z = (edge if isinstance(edge, int) and edge > 0 else None for edge in self._input.shape)
        return n, c, x, y, z

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See InferenceRuntime."""
        check_batch(batch, self.input_shape, self._subject)
        session = self._session
        if session is None:
            raise closed_network(self._subject)
        try:
            logits = session.run([self._output], {self._input.name: batch})[0]
        except _ORT_ERRORS as error:
            if "allocat" in str(error).lower():
                raise no_memory_for(batch, self._subject) from None
            raise failed_on(batch, self._subject, _first_line(error)) from None
        return np.ascontiguousarray(logits, dtype=np.float32)

    def close(self) -> None:
        """See InferenceRuntime."""
        self._session = None


def open_onnx_runtime(model: Model, options: RuntimeOptions, settings: OnnxRuntimeSettings) -> OnnxRuntime:
    """Load an ONNX model. Raises ModelError for a file that cannot be loaded, UsageError for precision or provider."""
    if options.precision != "fp32":
        raise UsageError("--precision", expected="fp32 with the onnx runtime", got=options.precision, do="leave it out")
    missing = [p for p in settings.providers if p not in ort.get_available_providers()]
    if missing:
        raise UsageError(
            "VOXPORT_ONNX__PROVIDERS",
            expected=f"some of {', '.join(ort.get_available_providers())}",
            got=", ".join(missing),
            do="install an onnxruntime that has them, or leave them out",
        )
    session_options = ort.SessionOptions()
    session_options.log_severity_level = 4
    session_options.enable_cpu_mem_arena = settings.arena
    session_options.intra_op_num_threads = options.threads or settings.threads or 0
    session_options.graph_optimization_level = _GRAPH_LEVELS[settings.graph_level]
    providers = [(p, dict(settings.provider_options.get(p, {}))) for p in settings.providers]
    try:
        session = _session(model, session_options, providers, settings)
    except _ORT_ERRORS as error:
        raise ModelError(
            model.path.name,
            expected="a model that ONNX Runtime can load",
            got=_first_line(error),
            do="export it again",
        ) from None
    return OnnxRuntime(session, model.path.name)


def _session(
    model: Model, options: Any, providers: list[tuple[str, dict[str, str]]], settings: OnnxRuntimeSettings
) -> Any:
    if settings.cache is None:
        return ort.InferenceSession(str(model.path), options, providers=providers)
    parts = (model.sha256, ort.__version__, repr(providers), settings.graph_level, _processor())
    cached = settings.cache / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()}.onnx"
    if cached.is_file():
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(str(cached), options, providers=providers)
    settings.cache.mkdir(parents=True, exist_ok=True)
    part = cached.with_suffix(f".{os.getpid()}.part")
    options.optimized_model_filepath = str(part)
    session = ort.InferenceSession(str(model.path), options, providers=providers)
    part.replace(cached)
    return session


def _processor() -> str:
    """What optimised graphs depend on: the processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "|".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _checked_input(session: Any, subject: str) -> Any:
    inputs = session.get_inputs()
    got = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs)
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 5:
        raise wrong_inputs(subject, got)
    return inputs[0]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


_ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.NoSuchFile,
    ort_errors.NoModel,
    ort_errors.EngineError,
    ort_errors.RuntimeException,
    ort_errors.InvalidProtobuf,
    ort_errors.ModelLoaded,
    ort_errors.NotImplemented,
    ort_errors.InvalidGraph,
    ort_errors.EPFail,
)
