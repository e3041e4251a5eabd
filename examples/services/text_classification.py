"""Classify text: ``bentoml serve examples.services.text_classification:TextClassifier``."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from numpy.typing import NDArray
from voxport import Application

from .images import softmax


@bentoml.service
class TextClassifier:
    """The vocabulary and the longest text, in words, come from the store."""

    def __init__(self) -> None:
        models = Application.build().tensor_models
        self.session = models.load_model("text_classifier:latest")
        model = models.get("text_classifier:latest")
        self.vocab: dict[str, int] = model.custom_objects.get("vocab", {})
        self.names: list[str] = model.custom_objects.get("class_names", [])
        self.max_length: int = model.metadata.get("max_length", 128)

    @bentoml.api
    def classify_text(self, text: str) -> dict[str, Any]:
        """The class of a text, and the probabilities of all."""
        probabilities = softmax(self.session.run({"tokens": self.tokens(text)})["logits"])[0]
        best = int(np.argmax(probabilities))
        return {
            "text": text,
            "predicted_class": best,
            "predicted_class_name": self.names[best] if best < len(self.names) else f"class_{best}",
            "confidence": float(probabilities[best]),
            "probabilities": probabilities.tolist(),
        }

    def tokens(self, text: str) -> NDArray[np.int64]:
        """Numbers of the words ``(1, max_length)``; 0 for an unknown word and for what is missing."""
        known = [self.vocab.get(word, 0) for word in text.lower().split()][: self.max_length]
        return np.array([known + [0] * (self.max_length - len(known))], np.int64)
