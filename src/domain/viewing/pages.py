"""The content of pages on cases, cohorts and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..labels.comparison import LabelAgreement
from .slicing import Plane

# Iglewicz and Hoaglin, "How to detect and handle outliers", 1993: modified z-scores beyond 3.5
_FAR = 3.5
_DEVIATIONS = 1.4826  # standard deviations in a median absolute deviation, of normal values
_MEAN_DEVIATIONS = 1.2533  # and in a mean one
_FEWEST = 5


@dataclass(frozen=True)
class Toggle:
    """Layers that are shown and hidden together, by name and colour ``#rrggbb``."""

    name: str
    colour: str


@dataclass(frozen=True)
class Layer:
    """A picture over a slice, transparent where it says nothing; ``toggle`` is an index."""

    toggle: int
    png: bytes


@dataclass(frozen=True)
class SliceFigure:
    """A slice as layers.

    ``size``: width and height of a voxel's share of space in the picture, in any unit. ``index`` of ``count`` slices
    of the plane, from 0. ``shows``: the labels whose largest extent it is. ``letters``: top, bottom, left, right.
    """

    plane: Plane
    index: int
    count: int
    size: tuple[float, float]
    letters: tuple[str, str, str, str]
    grey: bytes
    layers: tuple[Layer, ...]
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How often the values of a channel occur, in equal bins from ``low`` to ``high``; the outer ones hold the rest.

    ``kept``: the range that the card's first step keeps, if it clips.
    """

    channel: str
    low: float
    high: float
    counts: tuple[int, ...]
    kept: tuple[float, float] | None = None


@dataclass(frozen=True)
class CaseFigures:
    """Pictures and histograms of a case.

    ``levels``: the values drawn black and white. ``window``: those to show black and white at first.
    ``left_out``: slices that would make a page too large.
    """

    slices: tuple[SliceFigure, ...]
    toggles: tuple[Toggle, ...]
    levels: tuple[float, float]
    window: tuple[float, float]
    histograms: tuple[Histogram, ...]
    thumbnail: bytes
    left_out: int = 0


@dataclass(frozen=True)
class CasePage:
    """A page on a case: its ``report`` as plain data (``voxport/report/1``), and ``figures`` where there are any.

    ``key`` identifies the mask for ratings. ``notes``: what the reader should know of the page itself.
    """

    name: str
    report: Mapping[str, Any]
    key: str
    figures: CaseFigures | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CohortCase:
    """A case of a cohort. ``link``: its page, beside the cohort's. ``outlying``: distributions that it lies out of."""

    name: str
    key: str
    report: Mapping[str, Any]
    link: str
    thumbnail: bytes | None = None
    outlying: tuple[str, ...] = ()


@dataclass(frozen=True)
class Distribution:
    """A measure of a label over all cases that state it: values by case, and the fence that outliers are beyond."""

    label: str
    measure: str
    unit: str
    values: Mapping[str, float]
    fence: tuple[float, float] | None

    @property
    def title(self) -> str:
        """Label and measure."""
        return f"{self.label}: {self.measure}"

    @property
    def outliers(self) -> tuple[str, ...]:
        """The cases beyond the fence."""
        if self.fence is None:
            return ()
        low, high = self.fence
        return tuple(case for case, value in self.values.items() if not low <= value <= high)


@dataclass(frozen=True)
class CohortPage:
    """A page on all cases of a folder."""

    name: str
    cases: tuple[CohortCase, ...]
    distributions: tuple[Distribution, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComparedCase:
    """A mask beside its truth: the agreement of each label, and slices of what differs."""

    name: str
    labels: tuple[LabelAgreement, ...]
    unit: str
    tolerance: float
    slices: tuple[SliceFigure, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComparisonPage:
    """A page on masks and their truth; ``toggles`` are the kinds of difference."""

    cases: tuple[ComparedCase, ...]
    toggles: tuple[Toggle, ...]


def fence(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the least and the greatest value that is no outlier; None for fewer than 5 values.

    A value is an outlier where its modified z-score is beyond 3.5: its distance from the median, in standard deviations
    that are estimated from the median absolute deviation, or from the mean one where that is 0.
    """
    if len(values) < _FEWEST:
        return None
    found = np.asarray(values, dtype=np.float64)
    median = float(np.median(found))
    distances = np.abs(found - median)
    deviation = _DEVIATIONS * float(np.median(distances)) or _MEAN_DEVIATIONS * float(distances.mean())
    return median - _FAR * deviation, median + _FAR * deviation
