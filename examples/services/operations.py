"""Services that fail in part, say so, and measure themselves.

Start one with ``bentoml serve examples.services.operations:NAME``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from threading import Lock
from typing import Any

import bentoml
import numpy as np
from PIL import Image
from voxport import Application, VoxportError

from .images import prepared, softmax

Rows = list[list[float]]


@bentoml.service
class SeveralModels:
    """Several networks on one picture; one that fails does not take the others' answers away."""

    def __init__(self) -> None:
        self.models = Application.build().tensor_models

    @bentoml.api
    def comprehensive_analysis(self, image: Image.Image) -> dict[str, Any]:
        """The answer of each network, or its ``error``."""
        wanted = {
            "classification": "image_classifier",
            "detection": "object_detector",
            "segmentation": os.environ.get("EXAMPLE_SEGMENTOR", "segmentor"),
        }
        return {task: self._attempt(name, image) for task, name in wanted.items()}

    def _attempt(self, name: str, image: Image.Image) -> dict[str, Any]:
        try:
            model = self.models.get(name)
            (taken,) = self.models.session(model).inputs
            batch = prepared(image, taken.shape, model.custom_objects.get("preprocessing_params", {}))
            found = self.models.run(model, {taken.name: batch})
        except VoxportError as error:
            return {"error": str(error)}
        if "logits" in found:
            probabilities = softmax(found["logits"])[0]
            return {"predicted_class": int(probabilities.argmax()), "confidence": float(probabilities.max())}
        return {name: array[0].tolist() for name, array in found.items()}


@bentoml.service
class Robust:
    """A service that starts even where its model is missing or broken, and then says why it cannot answer."""

    def __init__(self) -> None:
        self.reason: str | None = None
        try:
            models = Application.build().tensor_models
            self.session = models.load_model(os.environ.get("EXAMPLE_MODEL", "batch_model:latest"))
            self.session.run({"x": np.zeros((1, 4), np.float32)})  # a dummy input finds out what does not run
        except VoxportError as error:
            self.reason = str(error)

    @bentoml.api
    def status(self) -> dict[str, Any]:
        """``ready``, or ``degraded`` with its reason."""
        return {"status": "ready" if self.reason is None else "degraded", "reason": self.reason}

    @bentoml.api
    def predict(self, input_data: Rows) -> dict[str, Any]:
        """Predictions, or an ``error``."""
        if self.reason is not None:
            return {"error": "the model is not available", "details": self.reason}
        try:
            found = self.session.run({"x": np.array(input_data, np.float32)})["y"]
        except (VoxportError, ValueError) as error:
            return {"error": "the prediction failed", "details": str(error)}
        return {"success": True, "predictions": found.tolist()}


@bentoml.service
class Monitored:
    """A service that tells how long it takes; its Prometheus page is ``/metrics``."""

    def __init__(self) -> None:
        self.session = Application.build().tensor_models.load_model("batch_model:latest")
        self.seconds: deque[float] = deque(maxlen=1000)
        self.requests = 0
        self.lock = Lock()

    @bentoml.api
    def predict_with_timing(self, input_data: Rows) -> dict[str, Any]:
        """Predictions, this request's time, the number of requests, and the mean time of the last thousand."""
        began = time.perf_counter()
        found = self.session.run({"x": np.array(input_data, np.float32)})["y"]
        taken = time.perf_counter() - began
        with self.lock:
            self.seconds.append(taken)
            self.requests += 1
            count, mean = self.requests, sum(self.seconds) / len(self.seconds)
        return {
            "predictions": found.tolist(),
            "inference_time": taken,
            "total_requests": count,
            "average_time": mean,
            "providers": [self.session.device],
        }
