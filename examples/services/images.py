"""What the services for images share: from a picture to a network's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def prepared(image: Image.Image, shape: Sequence[int | str | None], params: Mapping[str, Any]) -> NDArray[np.float32]:
    """A picture as ``(1, 3, height, width)``, resized, from 0 to 1, then with mean and std of ``params``."""
    height, width = int(shape[2] or 0), int(shape[3] or 0)
    values = np.asarray(image.convert("RGB").resize((width, height)), np.float32) / 255
    mean, std = (np.array(params.get(name, [fill] * 3), np.float32) for name, fill in (("mean", 0), ("std", 1)))
    return np.transpose((values - mean) / std, (2, 0, 1))[None].astype(np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return found
