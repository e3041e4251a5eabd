"""Agreement of two masks by hand: boxes, single voxels and tubes whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.labels.comparison import LabelAgreement, agreement
from voxport.domain.labels.label_map import Labels

SPACING = (0.5, 1.0, 2.0)


def compared(mask: Labels, truth: Labels, tolerance: float = 1.0, value: int = 1) -> LabelAgreement:
    return agreement(mask, truth, SPACING, value, "vessel", tolerance=tolerance, skeletonise=lambda inside: inside)


def box(*ranges: tuple[int, int], shape: tuple[int, int, int] = (20, 16, 12), value: int = 1) -> Labels:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(*part) for part in ranges)] = value
    return labels


def test_equal_masks_agree_in_everything() -> None:
    mask = box((2, 10), (3, 9), (4, 8))
    found = compared(mask, mask)
    assert (found.voxels, found.true_voxels) == (192, 192)
    assert (found.dice, found.iou, found.cl_dice, found.surface_dice) == (1, 1, 1, 1)
    assert (found.hausdorff_95, found.surface_distance, found.volume_difference) == (0, 0, 0)
    assert (found.component_precision, found.component_recall) == (1, 1)


def test_a_box_moved_by_two_voxels_has_known_overlap() -> None:
    found = compared(box((2, 10), (3, 9), (4, 8)), box((4, 12), (3, 9), (4, 8)))
    assert found.dice == 2 * 6 / 16
    assert found.iou == 6 / 10
    assert found.volume_difference == 0
    assert found.hausdorff_95 == 1.0  # two voxels of 0.5
    assert 0 < (found.surface_distance or 0) < 1
    assert found.surface_dice == 1.0  # within 1.0
    assert (compared(box((2, 10), (3, 9), (4, 8)), box((4, 12), (3, 9), (4, 8)), 0.9).surface_dice or 1) < 1


@pytest.mark.parametrize(("axis", "distance"), [(0, 1.5), (1, 3.0), (2, 6.0)])
def test_two_voxels_are_apart_by_the_spacing(axis: int, distance: float) -> None:
    mask, truth = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint8)
    truth[2, 2, 2] = 1
    mask[tuple(5 if at == axis else 2 for at in range(3))] = 1
    found = compared(mask, truth)
    assert (found.dice, found.iou, found.cl_dice, found.surface_dice) == (0, 0, 0, 0)
    assert (found.hausdorff_95, found.surface_distance) == (distance, distance)
    assert compared(mask, truth, tolerance=distance).surface_dice == 1
    assert (found.component_precision, found.component_recall) == (0, 0)


def test_a_label_that_is_nowhere_agrees_without_surfaces() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    assert compared(empty, empty) == LabelAgreement(1, "vessel", 0, 0, 1, 1, None, None, None, None, 0, None, None)


def test_a_label_in_one_mask_alone_has_no_distances() -> None:
    mask, empty = box((2, 4), (2, 4), (2, 4)), np.zeros((20, 16, 12), np.uint8)
    only, missed = compared(mask, empty), compared(empty, mask)
    assert (only.dice, only.surface_dice, only.hausdorff_95, only.surface_distance) == (0, 0, None, None)
    assert (only.volume_difference, missed.volume_difference) == (8.0, -8.0)
    assert (only.component_precision, only.component_recall) == (0, None)
    assert (missed.component_precision, missed.component_recall) == (None, 0)


def test_components_are_found_where_they_touch() -> None:
    truth = box((0, 2), (0, 2), (0, 2)) + box((6, 8), (0, 2), (0, 2)) + box((12, 14), (0, 2), (0, 2))
    mask = box((1, 3), (1, 3), (1, 3)) + box((12, 14), (0, 2), (0, 2)) + box((17, 19), (9, 11), (9, 11))
    mask[7, 8, 8] = 1
    found = compared(mask, truth)
    assert (found.component_precision, found.component_recall) == (2 / 4, 2 / 3)


def test_other_labels_take_no_part() -> None:
    mask, truth = box((2, 10), (3, 9), (4, 8)), box((2, 10), (3, 9), (4, 8))
    mask[15, 15, 11], truth[0, 0, 0] = 2, 3
    assert compared(mask, truth).dice == 1
    assert compared(mask, truth, value=2).true_voxels == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5]))
def test_turning_both_masks_changes_nothing(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    mask, truth = (rng.random((size + 2, size + 1, size)) < 0.4 for _ in range(2))
    one = agreement(mask.astype(np.uint8), truth.astype(np.uint8), SPACING, 1, "x", tolerance=1)
    turned = [np.ascontiguousarray(part.astype(np.uint8)[::-1].transpose(2, 0, 1)) for part in (mask, truth)]
    other = agreement(turned[0], turned[1], (2.0, 0.5, 1.0), 1, "x", tolerance=1)
    for name in ("dice", "iou", "surface_dice", "hausdorff_95", "surface_distance", "component_precision"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))
