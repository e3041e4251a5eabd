"""One compiled network, and as many requests to it as there are callers at a time.

The network is compiled once for every size of tile: on the tile of the bundled model a network that was compiled for
that size alone is no faster (0.57-0.71 s against 0.57-0.73 s in fp32, 0.18-0.20 s against 0.19-0.23 s in bf16), and the
first tile of another size takes 0.15 s longer, once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from .library import openvino

_DEVICE = "CPU"
# FP16 is left out: on a processor that has it, it gave labels that had nothing to do with the network's (agreement
# 0.003), as features beyond 65504 overflow.
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}


@dataclass(frozen=True)
class OpenvinoSettings:
    """How networks are compiled: ``cache`` is a folder for compiled networks, ``streams`` how many tiles at a time."""

    threads: int | None = None
    streams: int = 1
    cache: Path | None = None


class OpenvinoRuntime:
    """InferenceRuntime over one compiled network."""

    def __init__(self, compiled: Any, subject: str, precision: str) -> None:
        self._compiled = compiled
        self._subject = subject
        self._precision = precision
        self._input_shape = _checked_input_shape(compiled, subject)
        # a deque's pop and append are atomic
        self._idle: deque[Any] = deque()

    @property
    def name(self) -> str:
        """See InferenceRuntime."""
        return "openvino"

    @property
    def version(self) -> str:
        """See InferenceRuntime."""
        # 2026.4.1-22183-0e7a64f5c3c-releases/2026/4: the first part says all
        return f"openvino {openvino().get_version().partition('-')[0]}"

    @property
    def device(self) -> str:
        """See InferenceRuntime."""
        return _DEVICE.lower()

    @property
    def precision(self) -> str:
        """See InferenceRuntime."""
        return self._precision

    @property
    def input_shape(self) -> NetworkShape:
        """See InferenceRuntime."""
        return self._input_shape

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See InferenceRuntime."""
        check_batch(batch, self._input_shape, self._subject)
        compiled = self._compiled
        if compiled is None:
            raise closed_network(self._subject)
        try:
            request = self._idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            request.infer([np.ascontiguousarray(batch)], share_inputs=True)
            # a copy: the request's own memory is the next caller's
            logits = np.array(request.get_output_tensor(0).data, dtype=np.float32, order="C")
        except RuntimeError as error:
            said = str(error).lower()
            if "alloc" in said or "memory" in said:
                raise no_memory_for(batch, self._subject) from None
            raise failed_on(batch, self._subject, _what(error)) from None
        self._idle.append(request)
        return logits

    def close(self) -> None:
        """See InferenceRuntime."""
        self._compiled = None
        self._idle.clear()


def open_openvino_runtime(model: Model, options: RuntimeOptions, settings: OpenvinoSettings) -> OpenvinoRuntime:
    """Compile an ONNX model for this processor; ``model`` is the quantised network itself where int8 is asked for.

    Raises:
        ModelError: a file that cannot be loaded.
        UsageError: OpenVINO is not installed, or there is no such precision here.
    """
    library = openvino()
    core = library.Core()
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _hint(core, options.precision),
        "NUM_STREAMS": str(settings.streams),
        # threads are the operating system's to place: several processes that each pin theirs would share processors
        "ENABLE_CPU_PINNING": False,
    }
    threads = options.threads or settings.threads
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if settings.cache is not None:
        settings.cache.mkdir(parents=True, exist_ok=True)
        config["CACHE_DIR"] = str(settings.cache)
    try:
        compiled = core.compile_model(core.read_model(str(model.path)), _DEVICE, config)
    except RuntimeError as error:
        raise ModelError(
            model.path.name, expected="a model that OpenVINO can load", got=_what(error), do="export it again"
        ) from None
    return OpenvinoRuntime(compiled, model.path.name, options.precision)


def _hint(core: Any, precision: str) -> str:
    """What to compute in; of a quantised network, what is not quantised: in bf16 where there is that. UsageError."""
    able = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    offered = [name for name, capability in _CAPABILITIES.items() if capability in able]
    if precision not in offered:
        expected = f"{', '.join(offered)}: what the openvino runtime has on this processor"
        raise UsageError("--precision", expected=expected, got=precision, do="choose another")
    return "f32" if precision == "fp32" or "BF16" not in able else "bf16"


def _checked_input_shape(compiled: Any, subject: str) -> NetworkShape:
    inputs = compiled.inputs
    got = ", ".join(f"{i.any_name}: {i.element_type.get_type_name()} {i.partial_shape}" for i in inputs)
    if len(inputs) != 1 or inputs[0].element_type.get_type_name() != "f32" or len(inputs[0].partial_shape) != 5:
        raise wrong_inputs(subject, got)
    n, c, x, y, z = (None if edge.is_dynamic else edge.get_length() for edge in inputs[0].partial_shape)
    return n, c, x, y, z


def _what(error: RuntimeError) -> str:
    """The last line that says something: the first ones say where in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "While validating"))] or lines
    return (telling[-1] if telling else "an error")[:200]
