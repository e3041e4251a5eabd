"""A mask goes to the surface maker whole, or thinned out with nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.geometry.grid import FloatArray
from voxport.domain.labels.label_map import Label, Labels, LabelTable
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import slabs
from voxport.services.viewing import surfaces as module
from voxport.services.viewing.surfaces import label_surfaces

from tests.services.conftest import make_grid

TABLE = LabelTable((Label(1, "one"), Label(5, "five")))


class Recorder:
    """A SurfaceMaker that keeps what it was given."""

    labels: NDArray[np.uint8]
    affine: FloatArray

    def make(self, labels: Labels, affine: FloatArray, table: LabelTable, faces: int) -> bytes:  # noqa: ARG002
        self.labels, self.affine = np.asarray(labels, np.uint8), affine
        return b"scene"


@pytest.mark.parametrize("most", [2**25, 100])
def test_labels_are_thinned_out_to_the_largest_of_each_cube(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(module, "_MOST_VOXELS", most)
    monkeypatch.setattr(module, "slabs", lambda grid, axis: slabs(grid, axis, 300))
    grid = make_grid((11, 9, 7), codes="LPS")
    labels = np.zeros(grid.shape, np.uint8)
    labels[4, 7, 5], labels[10, 0, 6], labels[4, 6, 4] = 5, 1, 1
    store, maker = MemoryStore(), Recorder()
    store.put("mask", Volume(labels, grid))
    assert label_surfaces(store.open("mask"), TABLE, surfaces=maker) == b"scene"
    step = 1 if most > 1000 else 2
    expected = np.zeros([-(-n // step) for n in grid.shape], np.uint8)
    for at in np.argwhere(labels):
        place = tuple(at // step)
        expected[place] = max(expected[place], labels[tuple(at)])
    np.testing.assert_array_equal(maker.labels, expected)
    # the middle of a cube is the middle of its voxels
    np.testing.assert_allclose(maker.affine @ [1, 1, 1, 1], [*grid.world([1.5 * step - 0.5] * 3), 1])
