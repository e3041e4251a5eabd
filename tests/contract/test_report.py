"""A report on disk is what pages can show, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.adapters.pages.jinja import JinjaPages
from voxport.contract.report import check_report
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import InputError, ModelError, VoxportError
from voxport.domain.viewing.pages import CasePage, CohortCase, CohortPage
from voxport.services.pages.folder import measured
from voxport.testing.affine import affine_card
from voxport.testing.pages import page_report

PAGES = JinjaPages()


def report() -> dict[str, Any]:
    """A whole report, as JSON holds it."""
    data = page_report()
    data["model"]["card"] = write_card(affine_card(1, 3))
    return dict(json.loads(json.dumps(data)))


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value but the card's."""
    if at[:2] != ("model", "card"):
        for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
            yield (*at, key)
            yield from places(data[key], (*at, key))


PLACES = sorted(places(report()), key=str)
ODD = st.sampled_from([None, [], {}, "", "x", 0, -1, 10**30, 1e999, True, [None], {"a": 1}, "0" * 64, [1, 2, 3]])


def test_a_whole_report_gives_its_card() -> None:
    assert check_report(report(), "r.json").output.table.values == (1, 2)


def test_keys_of_later_versions_are_left_alone() -> None:
    data = report() | {"new": 1}
    data["statistics"]["labels"][0]["new"] = {"more": 2}
    check_report(data, "r.json")


@pytest.mark.parametrize("place", ["command", "statistics", "model", "grid"])
def test_a_missing_part_is_named(place: str) -> None:
    data = report()
    del data[place]
    with pytest.raises(InputError, match=rf"r\.json: expected a report of voxport, got one whose {place} is missing"):
        check_report(data, "r.json")


def test_a_report_without_a_card_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the card in r\.json"):
        check_report(page_report(), "r.json")


@given(st.lists(st.tuples(st.sampled_from(PLACES), st.none() | ODD), min_size=1, max_size=3), st.booleans())
def test_what_is_not_refused_can_be_shown(changes: list[tuple[tuple[Any, ...], Any]], gone: bool) -> None:
    data = report()
    for place, value in changes:
        with suppress(KeyError, IndexError, TypeError):  # an earlier change may have taken the place
            parent: Any = data
            for key in place[:-1]:
                parent = parent[key]
            if gone and isinstance(parent, dict):
                del parent[place[-1]]
            else:
                parent[place[-1]] = value
    try:
        check_report(data, "r.json")
    except VoxportError:
        return
    assert PAGES.case(CasePage("case", data, "key"))
    cases = tuple(CohortCase(f"case {i}", "key", data, "link") for i in range(6))
    assert PAGES.cohort(CohortPage("folder", cases, tuple(measured(cases))))
