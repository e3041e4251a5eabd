"""Services on rows of numbers: any length, batches, checked input, providers.

Start one with ``bentoml serve examples.services.rows:NAME``.
"""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from bentoml.exceptions import InvalidArgument
from numpy.typing import NDArray
from voxport import Application, InputError
from voxport.ports.tensors import joins_along

Rows = list[list[float]]


def _array(rows: Rows) -> NDArray[np.float32]:
    try:
        return np.array(rows, np.float32)
    except ValueError:
        raise InvalidArgument("expected rows of one length, got rows that differ; pad or split them") from None


@bentoml.service
class DynamicInput:
    """Rows of any length."""

    def __init__(self) -> None:
        self.session = Application.build().tensor_models.load_model("dynamic_model:latest")
        (self.taken,), (self.given,) = self.session.inputs, self.session.outputs
        self.dynamic_axes = [axis for axis, size in enumerate(self.taken.shape) if not isinstance(size, int)]

    @bentoml.api
    def process_variable_input(self, data: Rows) -> dict[str, Any]:
        """The network's answer for each row, and the shapes."""
        rows = _array(data)
        found = self.session.run({self.taken.name: rows})[self.given.name]
        return {"input_shape": rows.shape, "output_shape": found.shape, "results": found.tolist()}


@bentoml.service
class Batches:
    """Many rows, in batches of at most ``max_batch_size`` of the store's signature."""

    def __init__(self) -> None:
        models = Application.build().tensor_models
        self.session = models.load_model("batch_model:latest")
        self.max_batch_size: int = models.get("batch_model:latest").signatures["run"]["max_batch_size"]
        self.batch_dim = 0 if joins_along(self.session, 0, 0) else None

    @bentoml.api
    def batch_inference(self, inputs: Rows) -> list[dict[str, Any]]:
        """One prediction a row, in the order of the rows."""
        rows = _array(inputs)
        pieces = [rows[i : i + self.max_batch_size] for i in range(0, len(rows), self.max_batch_size)]
        found = np.concatenate([self.session.run({"x": piece})["y"] for piece in pieces])
        return [{"input_index": i, "prediction": row.tolist()} for i, row in enumerate(found)]


@bentoml.service
class Validated:
    """Input that is checked against the network's specification before anything runs."""

    def __init__(self) -> None:
        self.session = Application.build().tensor_models.load_model("batch_model:latest")

    @bentoml.api
    def predict(self, input_data: Rows) -> dict[str, Any]:
        """Predictions, or an ``error`` that says what was expected."""
        try:
            found = self.session.run({"x": _array(input_data)})["y"]
        except InputError as error:
            return {"success": False, "error": str(error)}
        return {"success": True, "predictions": found.tolist(), "output_shape": found.shape}


@bentoml.service
class Providers:
    """Execution providers with options, and an optimised graph whose metadata say so."""

    def __init__(self) -> None:
        models = Application.build().tensor_models
        providers = [("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})]
        self.session = models.load_model("optimized_model:latest", providers=providers)
        self.metadata = dict(models.get("optimized_model:latest").metadata)

    @bentoml.api
    def optimized_inference(self, input_data: Rows) -> dict[str, Any]:
        """The results, the device that computed them, and how the graph was optimised."""
        found = self.session.run({"x": _array(input_data)})["y"]
        return {"results": found.tolist(), "provider": self.session.device, "metadata": self.metadata}
