"""Contract suite of `Skeletoniser`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ..ports.skeletons import Skeletoniser


class SkeletoniserContract:
    """Subclass and implement the hook."""

    def make_skeletoniser(self) -> Skeletoniser:
        """A skeletoniser."""
        raise NotImplementedError

    def test_the_centre_line_of_a_straight_tube_is_its_axis(self) -> None:
        mask = np.zeros((30, 9, 9), bool)
        mask[2:28, 2:7, 2:7] = True
        line = self.make_skeletoniser().skeleton(mask)
        assert not (line & ~mask).any()
        assert {tuple(place[1:]) for place in np.argwhere(line[8:22])} == {(4, 4)}

    def test_what_is_connected_stays_so_and_what_is_not_stays_apart(self) -> None:
        mask = np.zeros((40, 40, 12), bool)
        mask[3:37, 5:10, 3:8] = True
        mask[18:23, 5:36, 3:8] = True  # a branch
        mask[3:37, 37:39, 9:11] = True  # apart
        line = self.make_skeletoniser().skeleton(mask)
        assert ndimage.label(line, np.ones((3, 3, 3)))[1] == 2
        assert line.sum() < mask.sum() / 4

    @pytest.mark.parametrize("thick", [1, 2, 3, 4, 5])
    def test_a_tube_of_any_thickness_has_a_centre_line_over_its_length(self, thick: int) -> None:
        mask = np.zeros((24, 9, 9), bool)
        mask[2:22, 2 : 2 + thick, 2 : 2 + thick] = True
        line = self.make_skeletoniser().skeleton(mask)
        assert line[2 + thick : 22 - thick].any(axis=(1, 2)).all()
        assert not (line & ~mask).any()

    @pytest.mark.parametrize("direction", [(1, 0, 1), (1, 1, 0), (1, 1, 1), (3, 1, 1), (1, 0, 6)])
    @pytest.mark.parametrize("radius", [2.5, 6.0])
    def test_an_oblique_tube_has_a_thin_centre_line_over_its_length(
        self, direction: tuple[int, int, int], radius: float
    ) -> None:
        axis = np.array(direction) / np.linalg.norm(direction)
        places = np.moveaxis(np.indices((60, 60, 60)), 0, -1) - 29.7
        along = places @ axis
        from_axis = np.linalg.norm(places - along[..., np.newaxis] * axis, axis=-1)
        line = self.make_skeletoniser().skeleton((from_axis <= radius) & (np.abs(along) <= 25))
        assert 2 * (25 - 1.5 * radius) / np.sqrt(3) <= line.sum() <= 2 * 50
        assert from_axis[line].max() <= max(1.5, radius / 2)
        assert np.ptp(along[line]) >= 2 * (25 - 1.5 * radius)

    def test_an_empty_mask_has_no_centre_line(self) -> None:
        assert not self.make_skeletoniser().skeleton(np.zeros((4, 5, 6), bool)).any()

    def test_the_mask_is_left_as_it_was(self) -> None:
        mask = np.ones((5, 5, 5), bool)
        self.make_skeletoniser().skeleton(mask)
        assert mask.all()
