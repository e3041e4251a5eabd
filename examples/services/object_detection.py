"""Find objects in pictures: ``bentoml serve examples.services.object_detection:ObjectDetector``."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from voxport import Application

from .images import prepared


@bentoml.service
class ObjectDetector:
    """Thresholds come from the store; ONNX's own NonMaxSuppression drops boxes that overlap a better one."""

    def __init__(self) -> None:
        models = Application.build().tensor_models
        self.session = models.load_model("object_detector:latest")
        self.suppression = models.load_model("suppression:latest")
        model = models.get("object_detector:latest")
        self.names: list[str] = model.custom_objects.get("class_names", [])
        self.confidence_threshold: float = model.metadata.get("confidence_threshold", 0.5)
        self.nms_threshold: float = model.metadata.get("nms_threshold", 0.4)

    @bentoml.api
    def detect_objects(self, image: Image.Image) -> dict[str, Any]:
        """Boxes in pixels of the picture as it came, the most confident first."""
        (taken,) = self.session.inputs
        found = self.session.run({taken.name: prepared(image, taken.shape, {})})
        boxes, probabilities = found["boxes"][0], found["probabilities"][0]
        classes, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
        width, height = image.size
        detections = [
            {
                "bbox": [int(x1 * width), int(y1 * height), int(x2 * width), int(y2 * height)],
                "class_id": int(classes[i]),
                "class_name": self._name(int(classes[i])),
                "confidence": float(confidences[i]),
            }
            for i in self._kept(boxes, classes, confidences)
            for x1, y1, x2, y2 in (boxes[i],)
        ]
        detections.sort(key=lambda detection: -detection["confidence"])
        return {
            "detections": detections,
            "num_detections": len(detections),
            "image_size": [width, height],
            "confidence_threshold": self.confidence_threshold,
        }

    def _kept(
        self, boxes: NDArray[np.float32], classes: NDArray[np.int64], confidences: NDArray[np.float32]
    ) -> list[int]:
        """Indices of the boxes that stay, class by class."""
        kept: list[int] = []
        for number in np.unique(classes):
            chosen = np.flatnonzero((classes == number) & (confidences > self.confidence_threshold))
            inputs = {
                "boxes": boxes[None, chosen],
                "scores": confidences[None, None, chosen],
                "overlap": np.array([self.nms_threshold], np.float32),
            }
            kept += [int(chosen[i]) for i in self.suppression.run(inputs)["kept"][:, 2]]
        return kept

    def _name(self, number: int) -> str:
        return self.names[number] if number < len(self.names) else f"class_{number}"
