"""The strategies draw what they promise."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from voxport.contract.card import read_card
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.cards.writing import write_card
from voxport.domain.geometry.grid import FloatArray, Grid, check_codes
from voxport.domain.volume import Volume
from voxport.testing.strategies import affines, boxes, cards, grids, orientation_codes, shapes, volumes

_few = settings(max_examples=40, deadline=None)


@_few
@given(cards())
def test_cards_survive_their_schema_as_json(card: ModelCard) -> None:
    assert read_card(json.loads(json.dumps(write_card(card)))) == card


@_few
@given(affines(sheared=True))
def test_affines_are_invertible_and_exact_in_single_precision(affine: FloatArray) -> None:
    assert np.linalg.matrix_rank(affine[:3, :3]) == 3
    np.testing.assert_array_equal(affine, affine.astype(np.float32))


@_few
@given(grids(oblique=False))
def test_grids_that_are_not_oblique_lie_along_the_world(grid: Grid) -> None:
    assert (np.count_nonzero(grid.affine[:3, :3], axis=0) == 1).all()
    assert not grid.is_sheared


@given(orientation_codes())
def test_codes_name_each_axis_once(codes: str) -> None:
    assert check_codes(codes) == codes


@_few
@given(st.data())
def test_boxes_lie_within_their_shape_and_hold_a_voxel(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    box = data.draw(boxes(shape))
    assert all(0 <= a < b <= edge for a, b, edge in zip(box.start, box.stop, shape, strict=True))


@_few
@given(volumes(["int16", "float64"], max_channels=2))
def test_volumes_are_finite_and_of_the_types_asked_for(volume: Volume) -> None:
    assert volume.array.dtype in (np.int16, np.float64)
    assert np.isfinite(volume.array).all()
    assert volume.channels in (1, 2)
