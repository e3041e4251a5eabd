"""Hypothesis strategies for grids, affines, volumes, boxes and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..domain.cards.model_card import Channel, Input, ModelCard
from ..domain.geometry.grid import UNITS, Box, FloatArray, Grid, Shape3
from ..domain.inference.patches import Padding, Tiling
from ..domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from ..domain.labels.label_map import ACTIVATIONS, Label, LabelTable, Output
from ..domain.run import BLENDINGS, LARGEST_OVERLAP
from ..domain.volume import Volume

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
# Small enough for an axis to keep its anatomical direction under any three angles.
_LARGEST_TILT_RAD = 0.25
_WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


def orientation_codes() -> st.SearchStrategy[str]:
    """Draw any of the 48 orientations, e.g. ``"RAS"``."""
    pairs = permutations(("RL", "AP", "SI"))
    return st.sampled_from(["".join(letters) for order in pairs for letters in product(*order)])


@st.composite
def affines(draw: st.DrawFn, *, oblique: bool = True, sheared: bool = False) -> FloatArray:
    """Draw RAS+ affines ``(4, 4)`` of any orientation, spacing 0.05 to 8, tilted if ``oblique``, skewed if ``sheared``.

    Entries are exact in single precision, which most file formats use.
    """
    directions = np.zeros((3, 3))
    for axis, letter in enumerate(draw(orientation_codes())):
        world = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        directions[world, axis] = 1.0 if letter in "RAS" else -1.0
    if oblique:
        tilts = [draw(st.floats(-_LARGEST_TILT_RAD, _LARGEST_TILT_RAD)) for _ in range(3)]
        directions = Rotation.from_euler("ZYX", tilts).as_matrix() @ directions
    if sheared:
        skew = np.eye(3)
        skew[np.triu_indices(3, 1)] = [draw(st.floats(-0.3, 0.3)) for _ in range(3)]
        directions = directions @ skew
    affine = np.eye(4)
    affine[:3, :3] = directions * [draw(st.floats(0.05, 8.0)) for _ in range(3)]
    affine[:3, 3] = [draw(st.floats(-500.0, 500.0)) for _ in range(3)]
    return affine.astype(np.float32).astype(np.float64)


def shapes(max_edge: int = 7) -> st.SearchStrategy[Shape3]:
    """Draw three edges from 1 to ``max_edge`` voxels."""
    edge = st.integers(1, max_edge)
    return st.tuples(edge, edge, edge)


def grids(*, max_edge: int = 7, oblique: bool = True, sheared: bool = False) -> st.SearchStrategy[Grid]:
    """Draw grids of up to ``max_edge`` voxels an axis, in any unit, with affines as `affines` draws them."""
    return st.builds(Grid, shapes(max_edge), affines(oblique=oblique, sheared=sheared), st.sampled_from(UNITS))


@st.composite
def boxes(draw: st.DrawFn, shape: Shape3) -> Box:
    """Draw boxes of at least one voxel within ``shape``."""
    ends = [sorted(draw(st.tuples(st.integers(0, edge - 1), st.integers(1, edge)))) for edge in shape]
    (x, x_end), (y, y_end), (z, z_end) = ((a, max(b, a + 1)) for a, b in ends)
    return Box((x, y, z), (x_end, y_end, z_end))


@st.composite
def volumes(
    draw: st.DrawFn, dtypes: Sequence[str] = DTYPES, *, max_edge: int = 7, max_channels: int = 3, sheared: bool = False
) -> Volume:
    """Draw finite volumes of these numpy types, over most of each type's range."""
    grid = draw(grids(max_edge=max_edge, sheared=sheared))
    dtype = np.dtype(draw(st.sampled_from(list(dtypes))))
    channels = draw(st.integers(1, max_channels))
    return Volume(_values(draw(st.integers(0, 2**32 - 1)), (channels, *grid.shape), dtype), grid)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    """Draw valid model cards without a certificate."""
    return ModelCard(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,12}", fullmatch=True)),
        version=draw(st.builds("{}.{}.{}".format, *[st.integers(0, 20)] * 3)),
        description=draw(_WORDS),
        licence=draw(st.sampled_from(["Apache-2.0", "MIT", "CC-BY-4.0"])),
        intended_use=draw(_WORDS),
        input=draw(_inputs()),
        tiling=draw(_tilings()),
        output=draw(_outputs()),
        provenance=draw(st.dictionaries(_WORDS, _WORDS, max_size=2)),
    )


@st.composite
def _inputs(draw: st.DrawFn) -> Input:
    channels = st.lists(st.builds(Channel, _WORDS, st.integers(0, 3)), min_size=1, max_size=3)
    lengths = st.tuples(*[st.floats(0.05, 8.0)] * 3)
    spacing = draw(st.none() | lengths)
    return Input(
        channels=tuple(draw(channels)),
        axes=draw(st.sampled_from(["XYZ", "ZYX"])),
        orientation=draw(st.none() | orientation_codes()),
        spacing=spacing,
        spacing_unit=None if spacing is None else draw(st.sampled_from(["mm", "um"])),
        intensity=tuple(draw(st.lists(_steps(), max_size=3))),
    )


def _steps() -> st.SearchStrategy[Step]:
    low, high = st.floats(-1000.0, 0.0), st.floats(1.0, 1000.0)
    return st.one_of(
        st.builds(ClipPercentiles, st.floats(0.0, 10.0), st.floats(90.0, 100.0)),
        st.builds(Rescale, low, high),
        st.builds(Window, low, high),
        st.builds(ZScore, st.sampled_from(["all", "nonzero"])),
        st.builds(ShiftScale, low, high),
    )


@st.composite
def _tilings(draw: st.DrawFn) -> Tiling:
    divisor = draw(st.sampled_from([1, 2, 8]))
    edge = st.none() | st.integers(1, 6).map(lambda count: count * divisor)
    return Tiling(
        patch=draw(st.tuples(edge, edge, edge)),
        divisor=divisor,
        overlap=draw(st.floats(0.0, LARGEST_OVERLAP)),
        blending=draw(st.sampled_from([name for name in BLENDINGS if name != "halo"])),
        padding=Padding(draw(st.sampled_from(["constant", "edge", "reflect"])), draw(st.floats(-10.0, 10.0))),
    )


@st.composite
def _outputs(draw: st.DrawFn) -> Output:
    activation = draw(st.sampled_from(ACTIVATIONS))
    values = draw(st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True))
    if activation != "sigmoid":  # one value a channel, from 1
        values = list(range(1, len(values) + 1))
    colours = st.integers(0, 2**24 - 1).map("#{:06x}".format)
    labels = tuple(Label(value, draw(_WORDS), draw(colours)) for value in values)
    output = Output(activation, LabelTable(labels))
    if activation != "none":
        output = replace(output, temperature=draw(st.sampled_from([1.0, 1.25])))
    if activation != "sigmoid" and len(labels) > 1:  # arg-max takes no threshold
        return output
    return output.with_threshold(draw(st.floats(0.01, 0.99)))


def _values(seed: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    if dtype.kind == "f":
        return (random.standard_normal(shape) * 1000).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
