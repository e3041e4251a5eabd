"""Classify pictures: ``bentoml serve examples.services.image_classification:ImageClassifier``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from PIL import Image
from voxport import Application, VoxportError

from .images import prepared, softmax


@bentoml.service
class ImageClassifier:
    """Class names and preprocessing come from the store, with the network."""

    def __init__(self) -> None:
        models = Application.build().tensor_models
        self.session = models.load_model("image_classifier:latest")
        objects = models.get("image_classifier:latest").custom_objects
        self.names: list[str] = objects.get("class_names", [])
        self.params: dict[str, Any] = objects.get("preprocessing_params", {})

    @bentoml.api
    def classify_image(self, image: Image.Image) -> dict[str, Any]:
        """The class of a picture, its probability, and the five most probable classes."""
        return self._classified(image)

    def _classified(self, image: Image.Image) -> dict[str, Any]:
        (taken,) = self.session.inputs
        logits = self.session.run({taken.name: prepared(image, taken.shape, self.params)})["logits"]
        probabilities = softmax(logits)[0]
        best = [
            {"class_id": int(i), "class_name": self._name(int(i)), "confidence": float(probabilities[i])}
            for i in np.argsort(-probabilities, kind="stable")[:5]
        ]
        first = best[0]
        return {
            "predicted_class": first["class_id"],
            "predicted_class_name": first["class_name"],
            "confidence": first["confidence"],
            "top5_predictions": best,
        }

    @bentoml.api
    def classify_batch(self, images: list[Path]) -> list[dict[str, Any]]:
        """One answer a picture; a file that is no picture has an ``error`` instead."""
        return [self._attempt(path) for path in images]

    def _attempt(self, path: Path) -> dict[str, Any]:
        try:
            with Image.open(path) as image:
                return self._classified(image)
        except (VoxportError, OSError, ValueError, SyntaxError) as error:
            return {"error": str(error)}

    def _name(self, number: int) -> str:
        return self.names[number] if number < len(self.names) else f"class_{number}"
