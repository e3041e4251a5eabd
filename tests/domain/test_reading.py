"""What a user may state of a volume."""

from __future__ import annotations

from typing import Any

import pytest
from voxport.domain.errors import UsageError
from voxport.domain.reading import Reading, length_unit


@pytest.mark.parametrize(
    ("stated", "subject"),
    [
        ({"spacing": (0.5, 0.0, 2.0)}, "spacing"),
        ({"spacing": (0.5, -1.0, 2.0)}, "spacing"),
        ({"spacing": (0.5, float("nan"), 2.0)}, "spacing"),
        ({"spacing": (0.5, float("inf"), 2.0)}, "spacing"),
        ({"spacing": (0.5, 1e13, 2.0)}, "spacing"),
        ({"unit": "inch"}, "unit"),
        ({"axes": ""}, "axes"),
        ({"axes": "ZY"}, "axes"),
        ({"axes": "ZYXX"}, "axes"),
        ({"axes": "QYX"}, "axes"),
        ({"timepoint": -1}, "timepoint"),
        ({"level": -1}, "level"),
    ],
)
def test_what_no_volume_can_have_is_refused(stated: dict[str, Any], subject: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reading(**stated)
    assert caught.value.subject == subject
    assert "\n" not in str(caught.value)


def test_the_case_of_the_axes_does_not_matter() -> None:
    assert Reading(axes="czyx") == Reading(axes="CZYX")


@pytest.mark.parametrize("axes", ["YX", "XYZ", "TCZYX", "YXZTC"])
def test_any_order_of_axes_may_be_stated(axes: str) -> None:
    assert Reading(axes=axes).axes == axes


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("um", "um"),
        ("\u00b5m", "um"),
        ("\u03bcm", "um"),
        (" Microns ", "um"),
        ("micrometre", "um"),
        ("nanometers", "nm"),
        ("mm", "mm"),
        ("centimeter", "cm"),
        ("metres", "m"),
        ("pixel", None),
        ("inch", None),
        ("", None),
    ],
)
def test_units_are_known_in_every_usual_spelling(text: str, unit: str | None) -> None:
    assert length_unit(text) == unit
