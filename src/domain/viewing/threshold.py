"""One threshold between dark and bright."""

from __future__ import annotations

import numpy as np

from ..intensity import Chunks

_BINS = 256


def otsu(chunks: Chunks, low: float, high: float) -> float:
    """The threshold that best separates values from ``low`` to ``high`` into two classes; ``high`` if low == high.

    Otsu, "A threshold selection method from gray-level histograms", 1979: the largest variance between the classes,
    here over 256 bins. Values above it are the bright class.
    """
    if not low < high:
        return high
    edges = np.linspace(low, high, _BINS + 1)
    counts = np.zeros(_BINS)
    for values, times in chunks():
        counts += np.histogram(values, edges, weights=times)[0]
    centres = (edges[:-1] + edges[1:]) / 2
    dark, bright = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_dark = np.cumsum(counts * centres) / np.maximum(dark, 1)
    mean_bright = np.cumsum((counts * centres)[::-1])[::-1] / np.maximum(bright, 1)
    between = dark[:-1] * bright[1:] * (mean_dark[:-1] - mean_bright[1:]) ** 2
    return float(edges[1 + int(np.argmax(between))])
