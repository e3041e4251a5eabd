"""Port for quantisation to int8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .model import Model


class Quantiser(Protocol):
    """Quantises networks after training, with ranges from calibration inputs."""

    def quantise(
        self,
        model: Model,
        inputs: Sequence[NDArray[np.float32]],
        destination: Path,
        *,
        spared: Sequence[float] = (0.0,),
    ) -> Iterator[int]:
        """Write an ONNX model's network, without a card, with convolutions in int8; yield how many, once a file.

        ``inputs`` are typical batches ``(N, C, ., ., .)`` in the network's own axes. For each share of ``spared``, a
        file in which convolutions that make up this share of all multiplications at most stay as they are: those that
        change the result most for each multiplication. Each file replaces the one before. Nothing is written where
        no convolution remains, or where the same ones do as in the file before.

        Raises:
            ModelError: the network cannot be quantised.
        """
