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
        """Write the network with convolutions in int8 to ``destination``, without a card; how many there are.

        Args:
            model: an ONNX model.
            inputs: batches ``(N, C, ., ., .)`` in the network's own axes, such as it is going to score.
            destination: the file to write.
            spared: so many convolutions at either end stay as they are; the outermost are the most delicate.

        Returns:
            The number of convolutions in int8. Nothing is written where it is 0.

        Raises:
            ModelError: the network cannot be quantised.
        """
