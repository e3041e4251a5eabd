"""Resampling gives what scipy, scikit-image, nnU-Net and MONAI give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.domain.cards.model_card import Channel, Input, ResamplingRule
from voxport.domain.geometry.grid import Grid, Shape3
from voxport.domain.geometry.interpolation import Order
from voxport.domain.geometry.model_space import ModelSpace
from voxport.domain.geometry.resampling import Resampling

from .test_resampling import Floats, streamed

Spacing3 = tuple[float, float, float]
shapes = st.tuples(*[st.integers(1, 20)] * 3)
spacings = st.tuples(*[st.sampled_from([0.7, 1.0, 1.25, 2.0, 3.0, 5.0])] * 3)
seeds = st.integers(0, 99)


def volume(shape: Shape3, seed: int) -> Floats:
    """Noise far from zero in places, with flat parts, beside which splines overshoot."""
    noise = np.random.default_rng(seed).standard_normal((2, *shape), np.float32)
    return np.float32(50 * seed % 7) + np.float32(100) * np.maximum(noise, -0.5)


def extent(source: Shape3, target: Shape3, order: Order = 3, separate: int | None = None) -> Resampling:
    x, y, z = (s / t for s, t in zip(source, target, strict=True))
    return Resampling(source, target, (x, y, z), order, separate, "extent")


def assert_close(found: Floats, expected: NDArray[np.floating], values: Floats) -> None:
    """Within 1e-4 of the values' range, or 1e-6 of the largest, for a flat volume."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.ptp(values) + 1e-6 * np.abs(values).max())


@pytest.mark.parametrize("order", [1, 3])
@settings(max_examples=20)
@given(shapes, shapes, seeds)
def test_splines_are_those_of_scipy(order: Order, source: Shape3, target: Shape3, seed: int) -> None:
    values, resampling = volume(source, seed), extent(source, target, order)
    zoom = [t / s for s, t in zip(source, target, strict=True)]
    expected = [ndimage.zoom(v.astype(float), zoom, order=order, mode="nearest", grid_mode=True) for v in values]
    planes = list(resampling.planes(iter(np.moveaxis(values, 3, 0)), 2))
    assert_close(np.stack(planes, axis=3), np.stack(expected), values)


@settings(max_examples=20)
@given(shapes, shapes, seeds, st.integers(0, 2))
def test_cubic_splines_are_clipped_as_in_scikit_image(source: Shape3, target: Shape3, seed: int, axis: int) -> None:
    from skimage.transform import resize

    values = volume(source, seed)
    rule = {"order": 3, "mode": "edge", "anti_aliasing": False, "clip": True}
    expected = [resize(v.astype(float), target, **rule) for v in values]  # type: ignore[no-untyped-call]
    found = streamed(extent(source, target), values, axis)
    assert_close(found, np.stack(expected), values)
    low, high = values.min((1, 2, 3)), values.max((1, 2, 3))
    assert (found.min((1, 2, 3)) >= low).all()
    assert (found.max((1, 2, 3)) <= high).all()


@pytest.mark.parametrize("order", [1, 3])
@settings(max_examples=40)
@given(shapes, spacings, spacings, seeds, st.integers(0, 2))
def test_the_whole_rule_is_that_of_nnunet_there_and_back(
    order: Order, shape: Shape3, old: Spacing3, new: Spacing3, seed: int, axis: int
) -> None:
    """Shapes, the coarse axis, which voxel of two is the nearest, and the clipping of each slice."""
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

    values, target = volume(shape, seed), compute_new_shape(shape, old, new)
    assume(target.min() > 0)
    rule = ResamplingRule(3 if order == 3 else 1, "auto", "after_intensity", "extent")
    space = ModelSpace.of(
        Grid(shape, np.diag([*old, 1.0]), "mm"), Input((Channel("ct", 0),), "XYZ", None, new, "mm", resampling=rule)
    )
    assert space.grid.shape == tuple(target)
    expected = resample_data_or_seg_to_shape(values, target, old, new, order=order, order_z=0, force_separate_z=None)
    assert_close(streamed(space.resampling, values, axis), expected, values)
    back = resample_data_or_seg_to_shape(expected, shape, new, old, order=order, order_z=0, force_separate_z=None)
    assert_close(streamed(replace(space.back, order=order), expected, axis), back, values)


@given(st.tuples(*[st.integers(1, 60)] * 3), st.tuples(*[st.floats(0.4, 6)] * 3), st.tuples(*[st.floats(0.4, 6)] * 3))
def test_the_grid_is_that_of_monais_spacing(shape: Shape3, old: Spacing3, new: Spacing3) -> None:
    from monai.data.utils import compute_shape_offset, zoom_affine

    edges = [(n - 1) * s / t for n, s, t in zip(shape, old, new, strict=True)]
    assume(all(abs(edge % 1 - 0.5) > 1e-9 for edge in edges))
    assume(all(abs(s - t) > 2e-3 for s, t in zip(old, new, strict=True)))
    grid = Grid(shape, np.diag([-old[0], old[1], old[2], 1.0]), "mm")
    affine = zoom_affine(grid.affine, new, diagonal=False)
    edge, offset = compute_shape_offset(shape, grid.affine, affine)
    found = first_voxel(grid, new, 1).grid
    assert found.shape == tuple(edge)
    np.testing.assert_allclose(found.affine[:3, :3], affine[:3, :3], atol=1e-9)
    np.testing.assert_allclose(found.affine[:3, 3], offset, atol=1e-9)


def first_voxel(grid: Grid, new: Spacing3, order: Order) -> ModelSpace:
    rule = ResamplingRule(3 if order == 3 else 1, align="first")
    return ModelSpace.of(grid, Input((Channel("ct", 0),), "XYZ", None, new, "mm", resampling=rule))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("order", "mode", "padding"), [(1, "bilinear", "border"), (3, 3, "nearest")])
@settings(max_examples=20)
@given(shapes, spacings, spacings, seeds, st.integers(0, 2))
def test_values_are_those_of_monais_spacing_and_of_its_inverse(
    order: Order, mode: str | int, padding: str, shape: Shape3, old: Spacing3, new: Spacing3, seed: int, axis: int
) -> None:
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import Spacing

    values, grid = volume(shape, seed), Grid(shape, np.diag([*old, 1.0]), "mm")
    spacing = Spacing(new, mode=mode, padding_mode=padding)
    expected = spacing(MetaTensor(torch.tensor(values), affine=torch.tensor(grid.affine)))
    space = first_voxel(grid, new, order)
    assert_close(streamed(space.resampling, values, axis), expected.numpy(), values)
    resampled = np.asarray(expected.numpy(), np.float32).copy()
    back = spacing.inverse(expected).numpy()
    assert_close(streamed(replace(space.back, order=order), resampled, axis), back, values)


def test_the_comparisons_would_notice_another_alignment() -> None:
    values = volume((12, 11, 10), 1)
    by_extent = streamed(extent((12, 11, 10), (9, 8, 7)), values, 0)
    with pytest.raises(AssertionError):
        assert_close(streamed(replace(extent((12, 11, 10), (9, 8, 7)), align="first"), values, 0), by_extent, values)
