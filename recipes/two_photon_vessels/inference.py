"""Sliding-window inference of a whole volume, for validation only."""

from __future__ import annotations

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import nn

from .pool import Shape, normalise


def vessel_probability(
    network: nn.Module, image: NDArray[np.float32], patch: Shape, overlap: float = 0.5
) -> NDArray[np.float32]:
    """Return the probability of vessel (X, Y, Z) for an image (X, Y, Z) in any unit of intensity."""
    volume = torch.from_numpy(np.ascontiguousarray(normalise(image)))[None, None]
    with torch.inference_mode():
        logits = sliding_window_inference(
            volume, patch, 1, network, overlap=overlap, mode="gaussian", padding_mode="replicate"
        )
        probability = torch.softmax(torch.as_tensor(logits), dim=1)[0, 1]
    return np.asarray(probability.numpy(), dtype=np.float32)
