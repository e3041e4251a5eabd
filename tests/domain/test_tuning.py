"""A tuning gives only what was measured, holds, and keeps to the bounds of the day."""

from __future__ import annotations

from dataclasses import replace

import pytest
from voxport.domain.parity import Agreement, Bounds
from voxport.domain.tuning import Candidate, Choice
from voxport.testing.tunings import FASTER, REFERENCE, example_tuning

TUNING = example_tuning()


def test_the_choice_is_given_while_it_keeps_to_the_bounds() -> None:
    assert TUNING.chosen(Bounds()) == FASTER
    assert TUNING.chosen(Bounds(label_agreement=0.9996)) is None
    assert TUNING.chosen(Bounds(dice=0.9993)) is None


@pytest.mark.parametrize(
    "changed",
    [{"agreement": None}, {"proves": False}, {"agreement": Agreement(1.0, (0.5,))}, {"choice": REFERENCE}],
)
def test_a_choice_that_was_not_measured_or_is_outside_the_bounds_is_none(changed: dict[str, object]) -> None:
    candidates = (TUNING.candidates[0], replace(TUNING.candidates[1], **changed))  # type: ignore[arg-type]
    assert replace(TUNING, candidates=candidates).chosen(Bounds()) is None


def test_the_fastest_way_in_a_precision_is_one_that_holds() -> None:
    quicker = Candidate(Choice("other", "bf16", 1, (8, 8, 8)), 0.1, Agreement(0.9, (0.9, 0.9)))
    slower = Candidate(Choice("other", "bf16", 1, (8, 8, 8)), 0.9, Agreement(1.0, (1.0, 1.0)))
    for extra in (quicker, slower):
        tuning = replace(TUNING, candidates=(*TUNING.candidates, extra))
        assert tuning.fastest("bf16", Bounds()) == FASTER
    assert TUNING.fastest("fp32", Bounds()) == REFERENCE
    assert TUNING.fastest("int8", Bounds()) is None


def test_a_choice_is_formatted_as_text() -> None:
    assert str(FASTER) == "openvino bf16, 2 thread(s), tiles of 16x16x8"
    assert str(replace(FASTER, batch=4)).endswith(", 4 tiles a call")
