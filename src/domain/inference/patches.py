"""Tile positions that cover a volume, and their blending weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..geometry.grid import Shape3, shape3
from ..run import AXES, Blending

_SIGMA_PER_EDGE = 0.125
# Per axis. A voxel covered by the corner of a tile alone has weight 3e-5 of the centre's, far above 2**-36.
_SMALLEST_WEIGHT = 0.03
# Weights are multiples of 2**-14, or 2**-17 where they go below, so the product of three is exact in float64.
_WEIGHT_STEPS, _FINE_STEPS = float(2**14), float(2**17)
Windows = Literal["even", "monai", "nnunet"]
# Of the product over the axes. nnU-Net's is the least of its 16-bit numbers, 2**-24, of ten times the weight. Blended
# logits keep 9 fractional bits with it.
_SMALLEST_PRODUCT: Mapping[Windows, float] = {"monai": 0.001, "nnunet": 2.0**-27}


@dataclass(frozen=True)
class Padding:
    """Padding of a volume smaller than a tile; ``value`` applies to ``constant``.

    ``to``: the whole patch, as MONAI and nnU-Net pad, or a multiple of the divisor; None means the latter.
    """

    mode: Literal["constant", "edge", "reflect"] = "constant"
    value: float = 0.0
    to: Literal["patch", "divisor"] | None = None


@dataclass(frozen=True)
class Tiling:
    """A card's sliding window; ``patch`` in voxels (None: the whole axis), ``overlap`` as a fraction of it.

    Patches are multiples of the ``divisor``, one number or one for each axis. Logits are the mean over the mirror
    images of a patch along all combinations of the ``mirror`` axes (0, 1, 2 for x, y, z).

    ``windows``: tiles are spread evenly, or start where those of MONAI or nnU-Net do and have their Gaussian weights.

    ``context``: a label depends on no voxel further away than this, along each axis. Tiles then overlap by twice as
    much at least and start at multiples of the divisor, so that in halo blending no label depends on the tiles.
    """

    patch: tuple[int | None, int | None, int | None]
    divisor: int | Shape3 = 1
    overlap: float = 0.5
    blending: Blending = "gaussian"
    padding: Padding = Padding()
    mirror: tuple[int, ...] = ()
    windows: Windows = "even"
    context: Shape3 | None = None

    @property
    def divisors(self) -> Shape3:
        """Divisor of each axis (x, y, z)."""
        return self.divisor if isinstance(self.divisor, tuple) else (self.divisor, self.divisor, self.divisor)

    @property
    def images(self) -> int:
        """Number of mirror images of a patch, each of them a call of the network."""
        return 1 << len(self.mirror)

    def rounded(self, shape: Iterable[int]) -> Shape3:
        """Return the edges (x, y, z) rounded up to the divisor."""
        return shape3(-(-edge // divisor) * divisor for edge, divisor in zip(shape, self.divisors, strict=True))


@dataclass(frozen=True)
class TilePlan:
    """Equal tiles over a volume of ``shape``, by their starts along each axis of the padded volume.

    An axis is padded only if it is shorter than a tile. Rows of tiles are processed in order along ``axis``, the
    visiting axis.
    """

    shape: Shape3
    tile: Shape3
    padded: Shape3
    pad_before: Shape3
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    axis: int
    blending: Blending
    padding: Padding
    windows: Windows = "even"

    @property
    def floor(self) -> float | None:
        """Least product of a voxel's weights along the axes; None where the weights along an axis have their own."""
        return _SMALLEST_PRODUCT.get(self.windows) if self.blending == "gaussian" else None

    @property
    def tile_count(self) -> int:
        """Number of tiles."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    @property
    def across(self) -> tuple[int, int]:
        """The two axes other than the visiting axis."""
        first, second = (a for a in range(3) if a != self.axis)
        return first, second

    def first_row(self, begin: int) -> int:
        """Return the first row of tiles that contributes to plane ``begin`` or a later one."""
        wanted = begin + self.pad_before[self.axis]
        if self.blending == "halo":
            ends = [stop for _, stop in self.cores(self.axis)]
        else:
            ends = [start + self.tile[self.axis] for start in self.starts[self.axis]]
        return next(row for row, end in enumerate(ends) if end > wanted)

    def tiles_before(self, begin: int) -> int:
        """Return the number of tiles that contribute only to planes before ``begin``."""
        first, second = self.across
        return self.first_row(begin) * len(self.starts[first]) * len(self.starts[second])

    def weights(self, axis: int) -> NDArray[np.float64]:
        """Return the blending weights along one axis of a tile, in [0, 1].

        The standard deviation of Gaussian weights is an eighth of the edge (Isensee et al., nnU-Net, Nature Methods
        2021).
        """
        edge = self.tile[axis]
        if self.blending != "gaussian":
            return np.ones(edge)
        centre = edge // 2 if self.windows == "nnunet" else (edge - 1) / 2
        distance = (np.arange(edge) - centre) / (_SIGMA_PER_EDGE * edge)
        weights = np.exp(-0.5 * distance**2)
        steps = _FINE_STEPS
        if self.floor is None:
            weights, steps = np.maximum(weights, _SMALLEST_WEIGHT), _WEIGHT_STEPS
        rounded: NDArray[np.float64] = np.rint(weights * steps) / steps
        return rounded

    def summed_weights(self, axis: int) -> NDArray[np.float64]:
        """Return the summed weights of all tiles along one axis.

        The product over axes normalises a voxel, without a ``floor``.
        """
        total = np.zeros(self.padded[axis])
        for start in self.starts[axis]:
            total[start : start + self.tile[axis]] += self.weights(axis)
        return total

    def cores(self, axis: int) -> tuple[tuple[int, int], ...]:
        """Return the core of each tile along one axis in halo blending; neighbours split their overlap."""
        starts, edge = self.starts[axis], self.tile[axis]
        middles = [(a + b + edge) // 2 for a, b in pairwise(starts)]
        return tuple(zip([0, *middles], [*middles, self.padded[axis]], strict=True))


def plan_tiles(
    shape: Shape3,
    tiling: Tiling,
    *,
    fixed: tuple[int | None, int | None, int | None] = (None, None, None),
    axis: int = 2,
) -> TilePlan:
    """Cover ``shape`` with equal tiles whose edges are multiples of the divisor.

    A tile is at most the axis rounded up to the divisor, unless the padding goes to the patch or the network has a
    fixed size (``fixed``). Starts are spread evenly: for 110 voxels, tile 64 and overlap 0.5 they are 0, 23, 46. With
    a ``context``, the volume is padded to multiples of the divisor, and a tile is at least half a patch more than the
    context on both of its sides.

    Raises:
        UsageError: the network's fixed size leaves nothing between the contexts on both sides.
    """
    rounded, context = tiling.rounded(shape), tiling.context or (0, 0, 0)
    steps = tiling.divisors if tiling.context else (1, 1, 1)
    edges = []
    for whole, patch, only, margin, divisor in zip(rounded, tiling.patch, fixed, context, tiling.divisors, strict=True):
        least = 2 * margin + max(divisor, (patch or 0) // 2) if margin else 0
        wanted = max(patch or whole, -(-least // divisor) * divisor)
        shrunk = wanted if patch is not None and tiling.padding.to == "patch" else min(wanted, whole)
        edges.append(only or shrunk)
    tile = shape3(edges)
    for name, whole, edge, margin, step in zip(AXES, rounded, tile, context, steps, strict=True):
        least = min(whole, 2 * margin + step)
        if margin and edge < least:
            raise UsageError(
                "inference.context",
                expected=f"a network that takes {least} voxels along {name}",
                got=f"one that takes {edge} only",
                do="export the network with free axes, or remove `context` and `blending` from the card",
            )
    padded = shape3(map(max, rounded if tiling.context else shape, tile))
    starts = tuple(
        _starts(n, t, tiling.overlap, tiling.windows, margin, step)
        for n, t, margin, step in zip(padded, tile, context, steps, strict=True)
    )
    pad_before = shape3((p - n) // 2 for p, n in zip(padded, shape, strict=True))
    return TilePlan(
        shape,
        tile,
        padded,
        pad_before,
        (starts[0], starts[1], starts[2]),
        axis,
        tiling.blending,
        tiling.padding,
        tiling.windows,
    )


def _starts(length: int, tile: int, overlap: float, windows: Windows, context: int, unit: int) -> tuple[int, ...]:
    """Return multiples of ``unit``, spread evenly, such that tiles overlap by twice the context at least.

    For 512 voxels, a tile of 320, a context of 67 and a unit of 8 the longest step is 184: they start at 0, 96, 192.
    """
    if length == tile:
        return (0,)
    # Rounded first: 0.1 is not exact in binary.
    step = max(1, min(int(round(tile * (1 - overlap), 6)), tile - 2 * context) // unit)
    last = (length - tile) // unit
    gaps = -(-last // step)
    if windows == "monai":
        return tuple(min(i * step, last) for i in range(gaps + 1))
    if windows == "nnunet":
        gaps = math.ceil(round((length - tile) / max(1, tile * (1 - overlap)), 6))
        return tuple(round(i * (length - tile) / gaps) for i in range(gaps + 1))
    return tuple((i * last + gaps // 2) // gaps * unit for i in range(gaps + 1))
