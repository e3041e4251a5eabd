"""Inference with ONNX Runtime on CPU, CUDA or TensorRT."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ....domain.errors import ModelError, UsageError
from ....ports.model import Model
from ....ports.runtime import NetworkRuntime, RuntimeOptions
from ....ports.tensors import TEXT, SessionOptions, Tensors, TensorSpec, check_tensors, closed_network, failed_on
from ...disk import sha256

_GRAPH_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

_DTYPES = {"float": "float32", "double": "float64", "string": TEXT}
_KNOWN = {"float16", "float32", "float64", "bool", TEXT, *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64))}


@dataclass(frozen=True)
class OnnxRuntimeSettings:
    """Session settings.

    ``providers`` are in order, each with its options. ``cache`` is a folder for optimised graphs, keyed by the model's
    hash, the runtime's version and all settings that affect the graph.
    """

    providers: Sequence[str] = ("CPUExecutionProvider",)
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    threads: int | None = None
    arena: bool = False
    graph_level: str = "all"
    cache: Path | None = None


class OnnxSession:
    """`TensorSession` over an ONNX Runtime session."""

    name = "onnx"
    version = f"onnxruntime {ort.__version__}"

    def __init__(self, session: Any, subject: str) -> None:
        self._session: Any = session
        self._subject = subject
        self.inputs = tuple(_spec(argument, subject) for argument in session.get_inputs())
        self.outputs = tuple(_spec(argument, subject) for argument in session.get_outputs())
        self.device = str(session.get_providers()[0].removesuffix("ExecutionProvider")).lower()

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:
        check_tensors(self, inputs, outputs, self._subject)
        session, names = self._session, list(outputs or (spec.name for spec in self.outputs))
        if session is None:
            raise closed_network(self._subject)
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except _ORT_ERRORS as error:
            raise failed_on(inputs, self._subject, _reason(error)) from None

    def close(self) -> None:
        self._session = None


def open_onnx_runtime(model: Model, options: RuntimeOptions, settings: OnnxRuntimeSettings) -> NetworkRuntime:
    """Load an ONNX model that takes images. Raises ModelError and UsageError as ``open_onnx_session``."""
    session = open_onnx_session(model.path, options, settings)
    return NetworkRuntime(session, model.path.name, output=model.card.output.tensor)


def open_onnx_session(path: Path, options: SessionOptions, settings: OnnxRuntimeSettings) -> OnnxSession:
    """Load an ONNX file. Raises ModelError for a file that cannot be loaded, UsageError for precision or provider."""
    if options.precision != "fp32":
        raise UsageError("precision", expected="fp32 with the onnx runtime", got=options.precision, do="leave it out")
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
        session = _session(path, session_options, providers, settings)
    except _ORT_ERRORS as error:
        raise ModelError(
            path.name,
            expected="a model that ONNX Runtime can load",
            got=_reason(error),
            do="export it again, with operators and versions that it has",
        ) from None
    return OnnxSession(session, path.name)


def _session(
    path: Path, options: Any, providers: list[tuple[str, dict[str, str]]], settings: OnnxRuntimeSettings
) -> Any:
    if settings.cache is None:
        return ort.InferenceSession(str(path), options, providers=providers)
    parts = (sha256(path), ort.__version__, repr(providers), settings.graph_level, _processor())
    cached = settings.cache / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()}.onnx"
    if cached.is_file():
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(str(cached), options, providers=providers)
    settings.cache.mkdir(parents=True, exist_ok=True)
    part = cached.with_suffix(f".{os.getpid()}.part")
    options.optimized_model_filepath = str(part)
    session = ort.InferenceSession(str(path), options, providers=providers)
    part.replace(cached)
    return session


def _processor() -> str:
    """Return the processor's model, on which optimised graphs depend, if known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return "|".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _spec(argument: Any, subject: str) -> TensorSpec:
    """Convert an ONNX Runtime argument, such as ``tensor(float)``, to a specification."""
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(kind, kind)
    if dtype not in _KNOWN:
        expected, do = f"tensors of the types {', '.join(sorted(_KNOWN))}", "export the network in this form"
        raise ModelError(subject, expected=expected, got=f"{argument.name}: {argument.type}", do=do)
    shape = (axis if isinstance(axis, int | str) else None for axis in argument.shape)
    return TensorSpec(argument.name, dtype, tuple(shape))


def _reason(error: Exception) -> str:
    """Return an error's first line without ONNX Runtime's error code, the model's path and the place in its source."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    first = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first)
    first = re.sub(r"^Load model from .*? failed:", "", first)
    first = re.sub(r"\S+\.(?:cc|cpp|h):\d+ .*?\) (?=\S)", "", first)
    return first.strip()[:300]


# ONNX Runtime's exceptions have no base class of their own.
_ORT_ERRORS = tuple(
    kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
