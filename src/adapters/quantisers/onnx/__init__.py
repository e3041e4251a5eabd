"""Post-training quantisation with ONNX Runtime's own tools; OpenVINO runs the result in int8 too."""

from __future__ import annotations

import logging
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ....domain.errors import ModelError
from ....ports.model import Model
from ....ports.quantiser import Quantiser

_QUANTISED = "Conv"
# Instructions that add products of 8 bits in 32 bits.
_WIDE_SUMS = {"avx512_vnni", "avx_vnni", "amx_int8"}


class OnnxQuantiser(Quantiser):
    """Quantiser to QDQ form: weights per channel, activations by the least and greatest value of the calibration.

    Args:
        reduce_range: give weights 7 bits instead of 8. By default, on x86 processors without VNNI instructions: these
            add the products of two unsigned activations and two signed weights in 16 bits, which saturate at 32767.
            With 8 bits a sum reaches 2 x 255 x 127 = 64770, with 7 bits 2 x 255 x 64 = 32640.
    """

    def __init__(self, reduce_range: bool | None = None) -> None:
        self._reduce_range = saturates() if reduce_range is None else reduce_range

    def quantise(
        self, model: Model, inputs: Sequence[NDArray[np.float32]], destination: Path, *, spared: int = 0
    ) -> int:
        with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
            folded = Path(folder) / "folded.onnx"
            try:
                name = _fold(model.path, folded)
                nodes = [node.name for node in onnx.load(folded).graph.node if node.op_type == _QUANTISED]
                chosen = nodes[spared : len(nodes) - spared]
                if not chosen:
                    return 0
                _quantise(folded, destination, _Inputs(name, inputs), chosen, self._reduce_range)
            except Exception as error:  # noqa: BLE001 - the tools raise many kinds
                raise ModelError(
                    model.path.name,
                    expected="a network that can be quantised",
                    got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                    do="use fp32 or bf16",
                ) from None
        return len(chosen)


def saturates(machine: str | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this processor may add 8-bit products in 16 bits: x86 that names no VNNI instructions."""
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64"):
        return False
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return _WIDE_SUMS.isdisjoint(flags)


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: Sequence[NDArray[np.float32]]) -> None:
        self._name, self._inputs = name, iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._inputs, None)
        return None if batch is None else {self._name: np.ascontiguousarray(batch)}


def _fold(source: Path, destination: Path) -> str:
    """Write the network with constants folded (weights may be stored in half precision); return its input's name."""
    options: Any = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(destination)
    session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return str(session.get_inputs()[0].name)


def _quantise(source: Path, destination: Path, inputs: _Inputs, nodes: Sequence[str], reduce_range: bool) -> None:
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it logs advice to the root logger
    try:
        quantize_static(
            str(source),
            str(destination),
            inputs,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[_QUANTISED],
            nodes_to_quantize=list(nodes),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_providers=["CPUExecutionProvider"],
        )
    finally:
        logging.getLogger().setLevel(level)
