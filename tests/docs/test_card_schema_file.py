"""The published JSON schema takes the cards that voxport takes, and refuses those that it refuses, field by field."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml
from voxport.contract.card import card_schema, read_card
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import ModelError

from .reading import DOCS, ROOT

SCHEMA = json.loads((DOCS / "model-card.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
(PAGE_CARD,) = re.findall(r"```yaml\n(schema:.*?)```", (DOCS / "model-card.md").read_text(encoding="utf-8"), re.DOTALL)
FULL: dict[str, Any] = yaml.safe_load(PAGE_CARD) | {
    "provenance": {"source": "net.pt"},
    "parity": {
        "weights_sha256": "0" * 64,
        "date": "2026-01-01",
        "probes": [{"shape": [1, 1, 8, 8, 8], "seed": 0, "probabilities": [0.5]}],
        "runtimes": [
            {
                "runtime": "onnx",
                "precision": "fp32",
                "version": "1",
                "label_agreement": 1.0,
                "dice": [1.0],
                "max_probability_difference": 0.0,
            }
        ],
    },
}
FULL["input"] |= {"spacing": [1.0, 1.0, 2.0], "spacing_unit": "um"}
FULL["input"]["intensity"] += [{"window": [-57, 164]}, {"zscore": {"nonzero": True}}, {"shift_scale": [0, 0.5]}]
# values of every kind; what a field takes of them is its own matter
ODD: list[Any] = [
    None,
    True,
    "",
    "text",
    "RAS",
    "XYZ",
    "mm",
    0,
    1,
    2,
    -1,
    8,
    0.3,
    0.9,
    1.5,
    200,
    [],
    [1],
    [1, 2, 3],
    {},
]
# What a schema does not say: rules over several fields, and which letters make three axes
ACROSS = re.compile(
    r"expected multiples of the divisor|goes with spacing|each value once|low < high|expected percentiles"
    r"|expected axis codes|exactly one of|^tiling.patch|^output.threshold|labels"
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested data."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if "provenance" not in path:
            yield from places(inner, (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The full card with another value at a path."""
    card = copy.deepcopy(FULL)
    at: Any = card
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return card


def refusal(card: object) -> str | None:
    """Why voxport refuses a card; None where it takes it."""
    try:
        read_card(card)
    except ModelError as error:
        return error.got
    return None


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    cards = [SCHEMA["$defs"][each["$ref"].rpartition("/")[2]] for each in SCHEMA["anyOf"]]
    assert [card["properties"]["schema"]["const"] for card in cards] == ["voxport/model-card/1", "voxport/model-card/2"]


def test_the_published_file_is_what_the_contract_describes() -> None:
    assert card_schema() == SCHEMA


def test_cards_of_the_project_are_taken() -> None:
    for card in [FULL, yaml.safe_load(PAGE_CARD), write_card(read_card(FULL))]:
        assert refusal(card) is None
        VALIDATOR.validate(card)
    for path in [*ROOT.glob("recipes/**/card.yaml")]:
        VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [path for path in places(FULL) if path], ids=lambda path: ".".join(map(str, path)))
def test_other_values_are_taken_and_refused_alike(path: tuple[Any, ...]) -> None:
    for value in ODD:
        card = changed(path, value)
        why = refusal(card)
        taken = VALIDATOR.is_valid(card)
        if why is None:
            assert taken, value
        elif taken:
            assert ACROSS.search(why), (value, why)


@pytest.mark.parametrize("path", [path for path in places(FULL) if path and isinstance(path[-1], str)])
def test_missing_fields_are_taken_and_refused_alike(path: tuple[Any, ...]) -> None:
    card = changed(path, None)
    at: Any = card
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    why = refusal(card)
    assert VALIDATOR.is_valid(card) == (why is None) or ACROSS.search(why or "")


@pytest.mark.parametrize("path", [path for path in places(FULL) if "provenance" not in path])
def test_unknown_fields_are_refused_alike(path: tuple[Any, ...]) -> None:
    card = changed(("name",), FULL["name"])
    at: Any = card
    for key in path:
        at = at[key]
    if isinstance(at, dict):
        at["colour_of_the_sky"] = "blue"
        assert refusal(card) is not None
        assert not VALIDATOR.is_valid(card)


@pytest.mark.parametrize("part", sorted(SCHEMA["$defs"]))
def test_the_page_names_every_field(part: str) -> None:
    page = (DOCS / "model-card.md").read_text(encoding="utf-8")
    fields = SCHEMA["$defs"][part].get("properties", {})
    assert [name for name in fields if not re.search(rf"\b{name}\b", page)] == []


def test_the_page_points_to_it() -> None:
    assert "(model-card.schema.json)" in (DOCS / "model-card.md").read_text(encoding="utf-8")
