"""Post-training quantisation with ONNX Runtime's own tools: what it writes, OpenVINO scores in int8 too."""

from __future__ import annotations

import logging
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

_QUANTISED = "Conv"


class OnnxQuantiser:
    """Quantiser to QDQ form: weights per channel, activations by the least and greatest value of the calibration."""

    def quantise(
        self, model: Model, inputs: Sequence[NDArray[np.float32]], destination: Path, *, spared: int = 0
    ) -> int:
        """See Quantiser.quantise."""
        with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
            folded = Path(folder) / "folded.onnx"
            try:
                name = _fold(model.path, folded)
                nodes = [node.name for node in onnx.load(folded).graph.node if node.op_type == _QUANTISED]
                chosen = nodes[spared : len(nodes) - spared]
                if not chosen:
                    return 0
                _quantise(folded, destination, _Inputs(name, inputs), chosen)
            except Exception as error:  # noqa: BLE001 - the tools raise whatever they come across
                raise ModelError(
                    model.path.name,
                    expected="a network that can be quantised",
                    got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                    do="use fp32 or bf16",
                ) from None
        return len(chosen)


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: Sequence[NDArray[np.float32]]) -> None:
        self._name, self._inputs = name, iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next input, as ONNX Runtime asks for it."""
        batch = next(self._inputs, None)
        return None if batch is None else {self._name: np.ascontiguousarray(batch)}


def _fold(source: Path, destination: Path) -> str:
    """Write the network with its constants computed (weights may be stored in half precision); its input's name."""
    options: Any = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(destination)
    session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return str(session.get_inputs()[0].name)


def _quantise(source: Path, destination: Path, inputs: _Inputs, nodes: Sequence[str]) -> None:
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises the root logger's readers on how to prepare a network
    try:
        quantize_static(
            str(source),
            str(destination),
            inputs,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[_QUANTISED],
            nodes_to_quantize=list(nodes),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_providers=["CPUExecutionProvider"],
        )
    finally:
        logging.getLogger().setLevel(level)
