"""Port for quantisation to int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .model import Model


class Quantiser(Protocol):
    """Quantises networks after training, with ranges from calibration inputs."""

    def quantise(
        self, model: Model, inputs: Sequence[NDArray[np.float32]], destination: Path, *, spared: int = 0
    ) -> int:
        """Write an ONNX model's network, without a card, with convolutions in int8; returns their number.

        ``inputs`` are typical batches ``(N, C, ., ., .)`` in the network's own axes. ``spared`` convolutions at either
        end, the most delicate ones, are not quantised. Nothing is written if none remains.

        Raises:
            ModelError: the network cannot be quantised.
        """
