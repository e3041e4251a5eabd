"""How far the predictions of overlapping patches differ, from one more channel of the sums that are blended anyway.

Blended logits are a mean over the patches that reach a voxel. The mean of a convex function of the logits, less the
function of the mean, is 0 where all patches predict the same, and else tells how far they are apart (Jensen's gap). For
the logarithm of the sum of exponentials it is the mean Kullback-Leibler divergence of the blended prediction from each
patch's. Sums of patches are exact, so the result does not depend on slabs or blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.patches import TilePlan
from ..inference.sliding_window import Pending, StartFunction
from .label_map import Logits, Output
from .uncertainty import bricks

# Rounding of the function in single precision, relative to 1 and its value; a real gap so small is 0.002 of distance.
_ROUNDING = 32 * float(np.finfo(np.float32).eps)


class Disagreement:
    """Appends a channel to a network's logits, and settles it once they are blended."""

    def __init__(self, output: Output) -> None:
        self._output = output

    @classmethod
    def of(cls, output: Output, plan: TilePlan) -> Disagreement | None:
        """Return the disagreement of a plan's patches; None where each voxel is taken from one of them."""
        return None if plan.blending == "halo" else cls(output)

    def beside(self, begin: StartFunction) -> StartFunction:
        """Return a network call that gives ``(N, K + 1, x, y, z)``: the logits and the function of them."""
        return lambda batch: _Appended(begin(batch), self._appended)

    def settled(self, blended: Logits) -> Logits:
        """Return blended logits ``(K + 1, x, y, z)`` whose last channel is the distance of the patches, 0 to 1.

        It is the Hellinger distance for two patches of equal weight: the root of 1 less the sum over labels of the
        geometric means of their probabilities.
        """
        logits = blended.copy(order="K")
        for part in bricks(logits.shape[1:]):
            mean, of_mean = logits[-1][part] * (len(logits) - 1), self._function(logits[:-1, *part])
            gap = mean - of_mean - _ROUNDING * (1 + np.abs(of_mean))
            logits[-1][part] = np.sqrt(-np.expm1(-np.maximum(gap, 0)))
        return logits

    def _appended(self, logits: Logits) -> Logits:
        if logits.ndim != 5:
            return logits  # refused where it is stitched
        count, classes, *shape = logits.shape
        found = np.empty_like(logits, np.float32, shape=(count, classes + 1, *shape))
        for tile, values in zip(found, logits, strict=True):
            for part in bricks(values.shape[1:]):
                tile[:-1, *part] = values[:, *part]
                with np.errstate(all="ignore"):  # of logits that are not finite, which are refused there too
                    # a share of it, as a sum over channels could be too large to be blended
                    tile[-1][part] = self._function(tile[:-1, *part]) / classes
        return found

    def _function(self, logits: Logits) -> NDArray[np.floating[Any]]:
        """Return a convex function of logits, or of probabilities, ``(K, ...)``; for several channels their sum."""
        output = self._output
        each = output.is_each(len(logits))
        if output.activation in ("none", "labels"):  # less the entropy
            share = np.clip(logits, 1e-12, 1)
            found = (share * np.log(share)).sum(axis=0)
            if each:
                other = np.clip(1 - logits, 1e-12, 1)
                found += (other * np.log(other)).sum(axis=0)
            return np.asarray(found)
        if output.temperature != 1:
            logits = logits / np.float32(output.temperature)
        if each:
            return np.asarray((np.maximum(logits, 0) + np.log(1 + np.exp(-np.abs(logits)))).sum(axis=0))
        if len(logits) == 2:  # the same as below, in fewer steps
            return np.asarray(np.maximum(*logits) + np.log(1 + np.exp(-np.abs(logits[1] - logits[0]))))
        highest = logits.max(axis=0)
        return np.asarray(highest + np.log(np.exp(logits - highest).sum(axis=0)))


@dataclass(frozen=True)
class _Appended:
    """Logits that are being computed, and what is appended to them."""

    pending: Pending
    appended: Callable[[Logits], Logits]

    def result(self) -> Logits:
        return self.appended(self.pending.result())
