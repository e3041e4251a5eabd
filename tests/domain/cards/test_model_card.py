"""What a card knows about itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from voxport.domain.cards.model_card import Channel, Input, ModelCard
from voxport.domain.errors import ModelError
from voxport.domain.inference.patches import Tiling
from voxport.domain.parity import Certificate
from voxport.testing.affine import affine_card
from voxport.testing.strategies import cards

few = settings(max_examples=15)
CERTIFICATE = Certificate("a" * 64, "2026-11-21", (), ())


@pytest.mark.parametrize(("sources", "count"), [((0,), 1), ((0, 1, 2), 3), ((0, 0), 1), ((3,), 4), ((2, 0), 3)])
def test_a_case_needs_channels_up_to_the_highest_source(sources: tuple[int, ...], count: int) -> None:
    assert Input(tuple(Channel("x", source) for source in sources)).source_count == count


@few
@given(cards())
def test_a_reference_is_name_and_version(card: ModelCard) -> None:
    assert card.reference.split(":") == [card.name, card.version]


@few
@given(cards())
def test_a_certificate_is_added_to_a_copy(card: ModelCard) -> None:
    certified = card.with_parity(CERTIFICATE)
    assert certified.parity is CERTIFICATE
    assert card.parity is None
    assert certified.with_parity(None) == card


@few
@given(cards())
def test_a_card_without_a_certificate_fits_any_weights(card: ModelCard) -> None:
    card.check_weights("b" * 64, "model.onnx")


@few
@given(cards())
def test_a_certificate_holds_for_its_own_weights_only(card: ModelCard) -> None:
    certified = card.with_parity(CERTIFICATE)
    certified.check_weights("a" * 64, "model.onnx")
    with pytest.raises(ModelError) as caught:
        certified.check_weights("b" * 64, "model.onnx")
    assert str(caught.value) == (
        "model.onnx: expected the certified weights (sha256 aaaaaaaaaaaa...), got sha256 bbbbbbbbbbbb...; "
        "get the file again, or certify it anew with voxport verify, a `card` without parity, and `against`"
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_across_the_axis_where_the_patch_is_1(axis: int) -> None:
    edges = [8, 8, 8]
    edges[axis] = 1
    card = affine_card(1, 2, tiling=Tiling((edges[0], edges[1], edges[2])))
    assert card.slice_axis == axis


@pytest.mark.parametrize("patch", [(8, 8, 8), (1, 8, 1), (8, 8, None)])
def test_a_patch_without_one_thin_axis_has_no_slices(patch: tuple[int | None, int | None, int | None]) -> None:
    with pytest.raises(ModelError, match="set that edge of the patch to 1"):
        _ = affine_card(1, 2, tiling=Tiling(patch)).slice_axis
