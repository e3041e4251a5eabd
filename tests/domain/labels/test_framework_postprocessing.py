"""Postprocessing gives what nnU-Net's acvl_utils and MONAI give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage
from voxport.domain.labels.label_map import Labels
from voxport.domain.labels.postprocessing import FillHoles, KeepLargest

from .test_postprocessing import label_maps, run


@settings(max_examples=15)
@given(label_maps())
def test_the_largest_component_is_that_of_acvl_utils(labels: Labels) -> None:
    acvl = pytest.importorskip("acvl_utils.morphology.morphology_helper", reason="acvl_utils is missing")
    for values in ((1,), (1, 2), (3, 1, 2)):
        mask = np.isin(labels, values)
        expected = np.where(mask & ~acvl.remove_all_but_largest_component(mask), 0, labels)
        np.testing.assert_array_equal(run(labels, KeepLargest(values))[0], expected)


@settings(max_examples=15)
@given(label_maps())
def test_the_largest_component_is_that_of_monai_but_for_others_of_its_size(labels: Labels) -> None:
    monai = pytest.importorskip("monai.transforms", reason="MONAI is missing")
    keep = monai.KeepLargestConnectedComponent(applied_labels=[1, 2], is_onehot=False, independent=False)
    expected = np.asarray(keep(labels[np.newaxis].astype(np.float32)))[0]
    result, (changed,) = run(labels, KeepLargest((1, 2)))
    tied = ndimage.label(np.isin(result, (1, 2)), np.ones((3, 3, 3)))[1] > 1  # MONAI keeps one of them
    assert (result >= expected).all()
    assert tied or (result == expected).all()
    assert changed.voxels == np.count_nonzero(result != labels)


@settings(max_examples=15)
@given(label_maps())
def test_holes_are_those_of_monai_with_connectivity_1(labels: Labels) -> None:
    monai = pytest.importorskip("monai.transforms", reason="MONAI is missing")
    one = np.where(labels == 1, labels, 0)
    expected = np.asarray(monai.FillHoles(applied_labels=[1], connectivity=1)(one[np.newaxis].astype(np.float32)))[0]
    np.testing.assert_array_equal(run(one, FillHoles((1,)))[0], expected)
