"""Contract suite of `LineTracer`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ..domain.labels.comparison import Mask
from ..ports.tracers import LineTracer

RING = [(2, 2), (2, 3), (3, 4), (4, 4), (5, 3), (5, 2), (4, 1), (3, 1)]


def line_of(*voxels: Sequence[int]) -> Mask:
    """A line of voxels."""
    line = np.zeros((12, 12, 12), bool)
    line[tuple(np.array(voxels).T)] = True
    return line


class LineTracerContract:
    """Subclass and implement the hook."""

    def make_tracer(self) -> LineTracer:
        """Return a tracer."""
        raise NotImplementedError

    def trace(self, line: Mask) -> tuple[NDArray[np.int64], ...]:
        """Trace a line, and check what holds of all paths."""
        before = line.copy()
        paths = self.make_tracer().trace(line)
        assert (line == before).all()
        for path in paths:
            assert np.abs(np.diff(path, axis=0)).max(initial=1) == 1
        followed = np.zeros(line.shape, bool)
        for path in paths:
            followed[tuple(path.T)] = True
        assert (followed == line).all()
        return paths

    def test_a_straight_line_is_one_path_from_end_to_end(self) -> None:
        (path,) = self.trace(line_of(*((i, i, 5) for i in range(2, 10))))
        assert {tuple(path[0]), tuple(path[-1])} == {(2, 2, 5), (9, 9, 5)}
        assert len(path) == 8

    def test_a_fork_has_three_paths_that_share_a_voxel(self) -> None:
        arms = [
            [(5, 5, 5 + i) for i in range(6)],
            [(5 + i, 5, 5) for i in range(6)],
            [(5 - i, 5 - i, 5) for i in range(5)],
        ]
        ends = {arm[-1] for arm in arms}
        paths = self.trace(line_of(*(voxel for arm in arms for voxel in arm)))
        long = [path for path in paths if len(path) > 3]
        assert len(long) == 3
        assert {tuple(path[at]) for path in long for at in (0, -1)} >= ends

    def test_a_ring_begins_and_ends_in_one_voxel(self) -> None:
        (path,) = self.trace(line_of(*((x, y, 4) for x, y in RING)))
        assert tuple(path[0]) == tuple(path[-1])
        assert len(path) == len(RING) + 1

    def test_voxels_alone_are_paths_of_one(self) -> None:
        paths = self.trace(line_of((0, 0, 0), (11, 11, 11)))
        assert sorted(path.tolist() for path in paths) == [[[0, 0, 0]], [[11, 11, 11]]]

    def test_what_is_apart_is_in_paths_of_its_own(self) -> None:
        paths = self.trace(line_of((1, 1, 1), (1, 1, 2), (1, 1, 3), (8, 8, 8), (11, 0, 0), (10, 0, 0)))
        assert sorted(len(path) for path in paths) == [1, 2, 3]

    def test_nothing_has_no_path(self) -> None:
        assert self.make_tracer().trace(np.zeros((3, 4, 5), bool)) == ()

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_line_along_the_border_is_followed(self, axis: int) -> None:
        line = np.zeros((4, 4, 4), bool)
        np.moveaxis(line, axis, 0)[:, 0, 0] = True
        (path,) = self.trace(line)
        assert sorted(path[:, axis].tolist()) == [0, 1, 2, 3]
