"""Parsers say what they expected and report every problem at once, each by its path."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.cards.fields import (
    Field,
    FieldErrors,
    Parse,
    any_text,
    boolean,
    items,
    mapping,
    matching,
    nullable,
    number,
    one_of,
    optional,
    record,
    several,
    short,
    text,
    whole,
)

person = record(
    lambda **values: values,
    {"name": Field(text), "age": optional(whole(0), 7), "note": nullable(text, "none given")},
)


def problems(parse: Parse[Any], value: object) -> dict[str, str]:
    with pytest.raises(FieldErrors) as caught:
        parse(value)
    return dict(caught.value.problems)


@pytest.mark.parametrize(
    ("parse", "value", "result"),
    [
        (text, "a b", "a b"),
        (any_text, "", ""),
        (boolean, True, True),
        (boolean, False, False),
        (number, 3, 3.0),
        (number, -2.5, -2.5),
        (whole(0), 0, 0),
        (whole(-5), -5, -5),
        (whole(1), 10**400, 10**400),
        (one_of("a", "b"), "b", "b"),
        (matching("[ab]+", "as and bs"), "abba", "abba"),
        (several(number, 2, "two numbers"), [1, 2], (1.0, 2.0)),
        (several(number, 2, "two numbers"), (1, 2), (1.0, 2.0)),
        (items(whole(1)), [], ()),
        (items(whole(1)), [3, 4], (3, 4)),
        (mapping, {"a": 1}, {"a": 1}),
    ],
)
def test_good_values_are_taken(parse: Parse[Any], value: object, result: object) -> None:
    parsed = parse(value)
    assert parsed == result
    assert type(parsed) is type(result)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (text, "", "expected text, got ''"),
        (text, "  ", "expected text, got '  '"),
        (text, 3, "expected text, got 3"),
        (any_text, None, "expected text, got None"),
        (boolean, 1, "expected true or false, got 1"),
        (boolean, "yes", "expected true or false, got 'yes'"),
        (number, True, "expected a finite number, got True"),
        (number, "3", "expected a finite number, got '3'"),
        (number, math.nan, "expected a finite number, got nan"),
        (number, -math.inf, "expected a finite number, got -inf"),
        (number, None, "expected a finite number, got None"),
        (whole(1), 0, "expected a whole number of at least 1, got 0"),
        (whole(1), 1.0, "expected a whole number of at least 1, got 1.0"),
        (whole(1), True, "expected a whole number of at least 1, got True"),
        (one_of("a", "b"), "c", "expected one of a, b, got 'c'"),
        (one_of("a", "b"), ["a"], r"expected one of a, b, got \['a'\]"),
        (matching("[ab]+", "as and bs"), "abc", "expected as and bs, got 'abc'"),
        (matching("[ab]+", "as and bs"), "ab\n", "expected as and bs"),
        (matching("[ab]+", "as and bs"), 1, "expected as and bs, got 1"),
        (several(number, 2, "two numbers"), [1], r"expected two numbers, got \[1\]"),
        (several(number, 2, "two numbers"), "12", "expected two numbers, got '12'"),
        (items(number), {"a": 1}, "expected a list, got {'a': 1}"),
        (mapping, [1], r"expected a mapping, got \[1\]"),
        (person, None, "expected a mapping, got None"),
    ],
)
def test_other_values_are_refused_with_what_was_expected(parse: Parse[Any], value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        parse(value)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_whole_number_too_large_for_a_float_is_refused_as_one(value: int) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        number(value)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_becomes_its_float(value: float) -> None:
    assert number(value) == float(value)


def test_left_out_and_null_mean_the_default_unless_null_means_null() -> None:
    assert person({"name": "Ada"}) == {"name": "Ada", "age": 7, "note": "none given"}
    assert person({"name": "Ada", "age": None, "note": None}) == {"name": "Ada", "age": 7, "note": None}
    assert person({"name": "Ada", "age": 3, "note": "x"}) == {"name": "Ada", "age": 3, "note": "x"}


def test_a_required_field_can_neither_be_left_out_nor_null() -> None:
    assert problems(person, {}) == {"name": "is missing"}
    assert problems(person, {"name": None}) == {"name": "expected text, got None"}


def test_an_unknown_key_is_named_with_the_key_that_was_meant() -> None:
    assert problems(person, {"name": "Ada", "aeg": 3, "zzzzz": 1, 5: 2}) == {
        "aeg": "is an unknown key (did you mean age?)",
        "zzzzz": "is an unknown key",
        "5": "is an unknown key",
    }


def test_every_problem_is_reported_by_its_path() -> None:
    family = record(lambda **values: values, {"head": Field(person), "members": Field(items(person))})
    found = problems(family, {"head": {"age": -1, "nam": "x"}, "members": [{"name": "Bo"}, {"name": ""}, 3], "pet": 1})
    assert found == {
        "head.name": "is missing",
        "head.age": "expected a whole number of at least 0, got -1",
        "head.nam": "is an unknown key (did you mean name?)",
        "members[1].name": "expected text, got ''",
        "members[2]": "expected a mapping, got 3",
        "pet": "is an unknown key",
    }


def test_lists_within_lists_have_a_path_too() -> None:
    pairs = items(several(number, 2, "two numbers"))
    assert problems(pairs, [[1, 2], [3, "x"], [4]]) == {
        "[1][1]": "expected a finite number, got 'x'",
        "[2]": "expected two numbers, got [4]",
    }


def test_nothing_is_built_while_a_field_is_wrong() -> None:
    def never(**values: object) -> None:
        raise AssertionError(values)

    assert problems(record(never, {"a": Field(number)}), {"a": "x"}) == {"a": "expected a finite number, got 'x'"}


def test_field_errors_read_as_one_line() -> None:
    assert str(FieldErrors(("a.b", "is missing"), ("", "expected c"))) == "a.b is missing; expected c"


@given(st.text(max_size=200))
def test_values_in_messages_are_cut_to_sixty_characters(value: str) -> None:
    shown = short(value)
    assert len(shown) <= 60
    assert shown == repr(value) or shown == repr(value)[:57] + "..."


def test_a_parsed_mapping_is_a_copy() -> None:
    given_mapping = {"a": 1}
    mapping(given_mapping)["b"] = 2
    assert given_mapping == {"a": 1}
