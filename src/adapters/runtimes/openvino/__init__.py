"""Inference with OpenVINO on CPU, in fp32 or bf16, or a quantised network in int8.

A network is compiled once for all patch sizes, with a request for each concurrent caller. Compiled for one size it is
not faster: 0.57-0.71 s against 0.57-0.73 s in fp32 and 0.18-0.20 s against 0.19-0.23 s in bf16 for the bundled model's
patch. The first patch of another size takes 0.15 s longer.

``import openvino`` imports its model converter, which reports the import: it creates ``~/intel`` with a user identifier
and sends an event to Google Analytics unless a file there forbids it. voxport does not need the converter, so both it
and the telemetry package are blocked.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import ModelError, UsageError
from ....ports.model import Model
from ....ports.runtime import NetworkRuntime, RuntimeOptions
from ....ports.tensors import SessionOptions, Tensors, TensorSpec, check_tensors, closed_network, failed_on
from ...group_norms import LARGEST_RATIO, RATIO, read_without_reshapes
from ...instructions import limited_below_bf16

_DEVICE = "CPU"
# FP16 is left out: features beyond 65504 overflow, and on a processor with FP16 the agreement of labels was 0.003.
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}

# Text is left out: freeing its tensors ends the process (2026.4).
_DTYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "boolean": "bool"}
_DTYPES |= {
    f"{kind}{bits}": f"{name}{bits}" for kind, name in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)
}

# None in sys.modules makes an import fail as if the module were not installed.
_REPORTING = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"
_importing = threading.Lock()


def openvino() -> ModuleType:
    """Import the library without telemetry, for the whole process.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("openvino") is None:
        do = "pip install openvino where it has a wheel, or take another runtime"
        raise UsageError("runtime openvino", expected="the package openvino", got="none", do=do)
    with _importing:
        if "openvino" not in sys.modules:
            sys.modules[_REPORTING] = None  # type: ignore[assignment]
            sys.modules[_CONVERTER] = None  # type: ignore[assignment]
            import_module("openvino")
            del sys.modules[_CONVERTER]  # can be imported again, without telemetry
        return sys.modules["openvino"]


@dataclass(frozen=True)
class OpenvinoSettings:
    """Compilation settings: ``cache`` is a folder for compiled networks, ``streams`` the number of parallel tiles."""

    threads: int | None = None
    streams: int = 1
    cache: Path | None = None


class OpenvinoSession:
    """`TensorSession` over a compiled network.

    ``network`` is the same as read: compiling adds names of nodes that it leaves out to inputs and outputs.
    ``as_stored`` opens the network as the file has it. It infers what is beyond the accuracy of a network with
    rewritten group normalisation.
    """

    name = "openvino"
    device = _DEVICE.lower()

    def __init__(
        self, network: Any, compiled: Any, subject: str, as_stored: Callable[[], OpenvinoSession] | None = None
    ) -> None:
        self._compiled: Any = compiled
        self._subject = subject
        self._open_as_stored = as_stored
        self._as_stored: OpenvinoSession | None = None
        self._opening = threading.Lock()
        self.inputs = tuple(_spec(port, subject) for port in network.inputs)
        # the ratio comes after the file's own
        self.outputs = tuple(_spec(port, subject) for port in network.outputs if RATIO not in port.names)
        # of 2026.4.1-22183-0e7a64f5c3c-releases/2026/4, the first part
        self.version = f"openvino {openvino().get_version().partition('-')[0]}"
        # a deque's pop and append are atomic
        self._idle: deque[Any] = deque()

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Tensors:
        check_tensors(self, inputs, outputs, self._subject)
        compiled = self._compiled
        if compiled is None:
            raise closed_network(self._subject)
        try:
            request = self._idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            request.infer([np.ascontiguousarray(inputs[spec.name]) for spec in self.inputs], share_inputs=True)
            accurate = self._open_as_stored is None or request.get_tensor(RATIO).data <= LARGEST_RATIO
            # copies, because the next caller overwrites the request's memory
            found = {
                spec.name: np.array(request.get_output_tensor(position).data, order="C")
                for position, spec in enumerate(self.outputs)
                if outputs is None or spec.name in outputs
            }
        except RuntimeError as error:
            raise failed_on(inputs, self._subject, _reason(error)) from None
        self._idle.append(request)
        return found if accurate else self._stored().run(inputs, outputs)

    def _stored(self) -> OpenvinoSession:
        """Return the network as the file has it, opened once."""
        with self._opening:
            if self._as_stored is None:
                assert self._open_as_stored is not None
                self._as_stored = self._open_as_stored()
            return self._as_stored

    def close(self) -> None:
        self._compiled = None
        self._idle.clear()
        if self._as_stored is not None:
            self._as_stored.close()


def open_openvino_runtime(model: Model, options: RuntimeOptions, settings: OpenvinoSettings) -> NetworkRuntime:
    """Compile an ONNX model that takes images; see `open_openvino_session`.

    For int8, ``model`` is the quantised network.
    """
    session = open_openvino_session(model.path, options, settings)
    return NetworkRuntime(session, model.path.name, options.precision, model.card.output.tensor)


def open_openvino_session(path: Path, options: SessionOptions, settings: OpenvinoSettings) -> OpenvinoSession:
    """Compile an ONNX file for this processor.

    Raises:
        ModelError: the file cannot be loaded, or has text tensors.
        UsageError: OpenVINO is not installed, or does not support the precision here.
    """
    library = openvino()
    core = library.Core()
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _hint(core, options.precision),
        "NUM_STREAMS": str(settings.streams),
        # the operating system places threads: processes that pin theirs would pin them to the same processors
        "ENABLE_CPU_PINNING": False,
    }
    threads = options.threads or settings.threads
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    if settings.cache is not None:
        settings.cache.mkdir(parents=True, exist_ok=True)
        config["CACHE_DIR"] = str(settings.cache)
    # Group normalisation takes a fifth of a SegResNet's time in fp32. In bf16 a network is no faster without, and
    # OpenVINO's own keeps its statistics in fp32.
    rewritten = read_without_reshapes(path) if options.precision == "fp32" else None

    def opened(graph: bytes | str, as_stored: Callable[[], OpenvinoSession] | None = None) -> OpenvinoSession:
        try:
            network = core.read_model(graph)
            compiled = core.compile_model(network, _DEVICE, config)
        except RuntimeError as error:
            raise ModelError(
                path.name,
                expected="a model that OpenVINO can load",
                got=_reason(error),
                do="export it again, with operators and versions that it has",
            ) from None
        return OpenvinoSession(network, compiled, path.name, as_stored)

    stored = partial(opened, str(path))
    return stored() if rewritten is None else opened(rewritten, stored)


def _hint(core: Any, precision: str) -> str:
    """Return the precision hint; fp32 for the other layers of a quantised network. Raises UsageError.

    In bf16 these would gain 7 % of a SegResNet's time, and round the sums that its normalisation subtracts.
    """
    able = set(core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")) - ({"BF16"} if limited_below_bf16() else set())
    offered = [name for name, capability in _CAPABILITIES.items() if capability in able]
    if precision not in offered:
        expected = f"{', '.join(offered)}: what the openvino runtime has on this processor"
        raise UsageError("precision", expected=expected, got=precision, do="choose another")
    return "bf16" if precision == "bf16" else "f32"


def _spec(port: Any, subject: str) -> TensorSpec:
    kind = port.element_type.get_type_name()
    if kind not in _DTYPES:
        expected, do = f"tensors of the types {', '.join(_DTYPES.values())}", "use the onnx runtime"
        raise ModelError(subject, expected=expected, got=f"{port.any_name}: {kind}", do=do)
    shape = (None if edge.is_dynamic else edge.get_length() for edge in port.partial_shape)
    return TensorSpec(port.any_name, _DTYPES[kind], tuple(shape))


def _reason(error: RuntimeError) -> str:
    """Return the last line of an error; earlier lines are places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("Exception from", "While validating"))] or lines
    return (own[-1] if own else "an error")[:300]
