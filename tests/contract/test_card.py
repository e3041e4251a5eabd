"""A card survives its schema, and a wrong card is refused with every mistake named by its path."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from voxport.contract.card import read_card
from voxport.domain.cards.model_card import Channel, Crop, Input, ModelCard, ResamplingRule
from voxport.domain.cards.writing import SCHEMA, SCHEMA_2, write_card
from voxport.domain.errors import ModelError
from voxport.domain.inference.patches import Padding, Tiling
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Window, ZScore
from voxport.domain.labels.label_map import Label, LabelTable, Output
from voxport.domain.labels.postprocessing import FillHoles, KeepLargest, RemoveSmall
from voxport.domain.parity import Certificate, Parity, PipelineParity, ProbeInput, RuntimeParity
from voxport.testing.strategies import cards

DESIGN_EXAMPLE = """
schema: voxport/model-card/1
name: two-photon-vessels            # [a-z0-9-]
version: 1.0.0
description: one sentence
licence: Apache-2.0
intended_use: one sentence, with what it is not for
input:
  axes: XYZ                         # or ZYX
  channels:                         # in the network's order
    - {name: fluorescence, source: 0}   # source = which input file or 4-D channel; default its position
  orientation: RAS                  # the default: reorient before scoring; null = as stored
  spacing: null                     # e.g. [1.0, 1.0, 1.0]: resample before scoring; null = as stored
  spacing_unit: null                # mm | um; with spacing
  intensity:                        # applied in order, per channel, over the whole volume
    - {clip_percentiles: [1, 99.5]}
    - {rescale: [0, 1]}             # min-max
    # also: {window: [-57, 164]} clip to a range · {zscore: {nonzero: true}} · {shift_scale: [0, 0.0039]}
tiling:
  patch: [96, 96, 16]               # voxels; null on an axis = the whole axis
  divisor: 8                        # every tile edge is a multiple of it
  overlap: 0.5
  blending: gaussian                # gaussian | constant
  padding: {mode: constant, value: 0}
output:
  activation: softmax               # softmax | sigmoid | none
  threshold: 0.5                    # sigmoid only
  labels: [{value: 1, name: vessel, colour: "#e4572e"}]
provenance: {}                      # filled by export: source file and sha256, network, framework versions, date
parity: null                        # filled by export and verify: the certificate, below
"""

MINIMAL: dict[str, Any] = {
    "schema": SCHEMA,
    "name": "small",
    "version": "1",
    "input": {"channels": [{"name": "t1"}]},
    "tiling": {"patch": [None, 16, 8]},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "vessel"}]},
}
CERTIFICATE = Certificate(
    "ab" * 32,
    "2026-11-21",
    (ProbeInput((1, 1, 8, 9, 10), 0, (0.25, 0.5)), ProbeInput((2, 1, 4, 4, 4), 7)),
    (RuntimeParity("onnx", "fp32", "1.22", Parity(1.0, (1.0, 0.75), 1e-6)),),
)

certificates = st.builds(
    Certificate,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.dates().map(str),
    st.lists(
        st.builds(
            ProbeInput,
            st.tuples(*[st.integers(1, 40)] * 5),
            st.integers(0, 2**31),
            st.lists(st.floats(0, 1), max_size=4).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    st.lists(
        st.builds(
            RuntimeParity,
            st.sampled_from(["onnx", "torch"]),
            st.sampled_from(["fp32", "int8"]),
            st.just("1.2.3"),
            st.builds(Parity, st.floats(0, 1), st.lists(st.floats(0, 1), max_size=3).map(tuple), st.floats(0, 1)),
        ),
        max_size=3,
    ).map(tuple),
)


def changed(path: Sequence[str | int], value: object) -> dict[str, Any]:
    """The full example with one field set."""
    data: Any = yaml.safe_load(DESIGN_EXAMPLE)
    at = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return dict(data)


def refusal(data: object) -> str:
    with pytest.raises(ModelError) as caught:
        read_card(data, "model.onnx")
    error = caught.value
    assert str(error) == f"model.onnx: expected a valid model card, got {error.got}; correct the card"
    assert "\n" not in str(error)
    return error.got


# Round trips


@given(cards())
def test_a_written_card_reads_back_the_same(card: ModelCard) -> None:
    assert read_card(write_card(card)) == card


@given(cards())
def test_so_it_does_through_json_and_yaml(card: ModelCard) -> None:
    data = write_card(card)
    assert read_card(json.loads(json.dumps(data))) == card
    assert read_card(yaml.safe_load(yaml.safe_dump(data))) == card


@given(cards(), certificates)
def test_a_certificate_survives_with_its_card(card: ModelCard, certificate: Certificate) -> None:
    certified = card.with_parity(certificate)
    assert read_card(json.loads(json.dumps(write_card(certified)))) == certified


def test_a_minimal_card_survives_being_written() -> None:
    card = read_card(MINIMAL)
    assert read_card(write_card(card)) == card


@given(cards())
def test_writing_gives_plain_data_of_its_own(card: ModelCard) -> None:
    data = write_card(card)
    before = copy.deepcopy(write_card(card))
    data["provenance"]["new"] = 1
    data["input"]["channels"].clear()
    assert write_card(card) == before


# Reading


def test_the_designs_example_says_what_it_says() -> None:
    assert read_card(yaml.safe_load(DESIGN_EXAMPLE)) == ModelCard(
        name="two-photon-vessels",
        version="1.0.0",
        description="one sentence",
        licence="Apache-2.0",
        intended_use="one sentence, with what it is not for",
        input=Input(
            channels=(Channel("fluorescence", 0),),
            axes="XYZ",
            orientation="RAS",
            spacing=None,
            spacing_unit=None,
            intensity=(ClipPercentiles(1, 99.5), Rescale(0, 1)),
        ),
        tiling=Tiling((96, 96, 16), 8, 0.5, "gaussian", Padding("constant", 0)),
        output=Output("softmax", LabelTable((Label(1, "vessel", "#e4572e"),)), 0.5),
        provenance={},
        parity=None,
    )


def test_every_intensity_step_can_be_named() -> None:
    steps = [
        {"window": [-57, 164]},
        {"zscore": {"nonzero": True}},
        {"zscore": {}},
        {"shift_scale": [0, 0.0039]},
        {"clip_percentiles": [0, 100]},
    ]
    card = read_card(changed(["input", "intensity"], steps))
    assert card.input.intensity == (
        Window(-57, 164),
        ZScore("nonzero"),
        ZScore(),
        ShiftScale(0, 0.0039),
        ClipPercentiles(0, 100),
    )


def test_what_a_minimal_card_leaves_out_has_its_default() -> None:
    card = read_card(MINIMAL)
    assert (card.description, card.licence, card.intended_use) == ("", "", "")
    assert card.input == Input((Channel("t1", 0),))
    assert card.tiling == Tiling((None, 16, 8), 1, 0.5, "gaussian", Padding("constant", 0.0))
    assert card.output.threshold == 0.5
    assert (card.provenance, card.parity) == ({}, None)


def test_a_null_orientation_means_as_stored_and_one_left_out_means_ras() -> None:
    assert read_card(changed(["input", "orientation"], None)).input.orientation is None
    assert read_card(MINIMAL).input.orientation == "RAS"


def test_a_channels_source_is_its_position_unless_given() -> None:
    channels = [{"name": "a"}, {"name": "b", "source": 0}, {"name": "c"}]
    card = read_card(changed(["input", "channels"], channels))
    assert card.input.channels == (Channel("a", 0), Channel("b", 0), Channel("c", 2))


def test_labels_without_a_colour_get_one_each() -> None:
    labels = [{"value": value, "name": f"label {value}"} for value in range(1, 12)]
    colours = [label.colour for label in read_card(changed(["output", "labels"], labels)).output.table.labels]
    assert len(set(colours[:8])) == 8
    assert colours[8:] == colours[:3]


# Refusals


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (
            ["schema"],
            "voxport/model-card/3",
            "schema expected voxport/model-card/1 or voxport/model-card/2, got 'voxport/model-card/3'",
        ),
        (["name"], "Two Photon", "name expected lower-case letters, digits and hyphens, got 'Two Photon'"),
        (["name"], "../up", "name expected lower-case letters, digits and hyphens, got '../up'"),
        (["version"], 1.0, "version expected a version such as 1.0.0, in quotes, got 1.0"),
        (["version"], "1/0", "version expected a version such as 1.0.0, in quotes, got '1/0'"),
        (["description"], 3, "description expected text, got 3"),
        (["licence"], ["MIT"], "licence expected text, got ['MIT']"),
        (["intended_use"], 3, "intended_use expected text, got 3"),
        (["input"], None, "input expected a mapping, got None"),
        (["input", "axes"], "YXZ", "input.axes expected one of XYZ, ZYX, got 'YXZ'"),
        (["input", "channels"], [], "input.channels expected at least one channel"),
        (["input", "channels", 0, "name"], "", "input.channels[0].name expected text, got ''"),
        (
            ["input", "channels", 0, "source"],
            -1,
            "input.channels[0].source expected a whole number of at least 0, got -1",
        ),
        (
            ["input", "orientation"],
            "RAL",
            "input.orientation expected axis codes such as RAS, or null for as stored, got 'RAL'",
        ),
        (
            ["input", "orientation"],
            7,
            "input.orientation expected axis codes such as RAS, or null for as stored, got 7",
        ),
        (["input", "spacing"], [1, 1, 1], "input.spacing_unit goes with spacing: give both or neither"),
        (["input", "spacing_unit"], "mm", "input.spacing_unit goes with spacing: give both or neither"),
        (["input", "spacing_unit"], "m", "input.spacing_unit expected one of mm, um, got 'm'"),
        (["input", "spacing"], [1, 1], "input.spacing expected three lengths (x, y, z), got [1, 1]"),
        (["input", "spacing"], [1, 0, 1], "input.spacing[1] expected a positive length, got 0"),
        (["input", "spacing"], [1, 1, 10**400], "input.spacing[2] expected a finite number"),
        (["input", "intensity"], {"rescale": [0, 1]}, "input.intensity expected a list, got {'rescale': [0, 1]}"),
        (
            ["input", "intensity", 0],
            {"rescale": [1, 1]},
            "input.intensity[0].rescale expected low < high, got [1.0, 1.0]",
        ),
        (
            ["input", "intensity", 0],
            {"window": [2, 1]},
            "input.intensity[0].window expected low < high, got [2.0, 1.0]",
        ),
        (
            ["input", "intensity", 1],
            {"clip_percentiles": [-1, 99]},
            "input.intensity[1].clip_percentiles expected percentiles from 0 to 100, got [-1.0, 99.0]",
        ),
        (
            ["input", "intensity", 1],
            {"clip_percentiles": [1, 101]},
            "input.intensity[1].clip_percentiles expected percentiles from 0 to 100, got [1.0, 101.0]",
        ),
        (["input", "intensity", 0], {"rescale": [0]}, "input.intensity[0].rescale expected two numbers, got [0]"),
        (["input", "intensity", 0], {}, "input.intensity[0] expected exactly one of clip_percentiles, rescale, "),
        (
            ["input", "intensity", 0],
            {"rescale": [0, 1], "window": [0, 1]},
            "input.intensity[0] expected exactly one of clip_percentiles, rescale, window, shift_scale, zscore",
        ),
        (
            ["input", "intensity", 0],
            {"zscore": {"nonzero": "yes"}},
            "input.intensity[0].zscore.nonzero expected true or false, got 'yes'",
        ),
        (["tiling", "patch"], [96, 96], "tiling.patch expected three edges (x, y, z) in voxels, null for a whole axis"),
        (["tiling", "patch"], [96, 0, 8], "tiling.patch[1] expected a whole number of at least 1, got 0"),
        (["tiling", "patch"], [96, 90, 8], "tiling.patch expected multiples of the divisor 8, got (96, 90, 8)"),
        (["tiling", "divisor"], 0, "tiling.divisor expected a whole number of at least 1, got 0"),
        (["tiling", "overlap"], 0.76, "tiling.overlap expected a number from 0 to 0.75, got 0.76"),
        (["tiling", "overlap"], -0.1, "tiling.overlap expected a number from 0 to 0.75, got -0.1"),
        (["tiling", "blending"], "halo", "tiling.blending expected one of gaussian, constant, got 'halo'"),
        (
            ["tiling", "padding", "mode"],
            "wrap",
            "tiling.padding.mode expected one of constant, edge, reflect, got 'wrap'",
        ),
        (["tiling", "padding", "value"], float("nan"), "tiling.padding.value expected a finite number, got nan"),
        (["output", "activation"], "relu", "output.activation expected one of softmax, sigmoid, none, got 'relu'"),
        (["output", "threshold"], 0, "output.threshold expected a number from 0 to 1, got 0"),
        (["output", "threshold"], 1, "output.threshold expected a number from 0 to 1, got 1"),
        (["output", "labels"], [], "output.labels expected at least one label and each value once, got []"),
        (
            ["output", "labels"],
            [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}],
            "output.labels expected at least one label and each value once, got [1, 1]",
        ),
        (["output", "labels", 0, "value"], 0, "output.labels[0].value expected a whole number of at least 1, got 0"),
        (["output", "labels", 0, "name"], None, "output.labels[0].name expected text, got None"),
        (
            ["output", "labels", 0, "colour"],
            "red",
            "output.labels[0].colour expected a colour such as #e4572e, got 'red'",
        ),
        (["provenance"], [], "provenance expected a mapping, got []"),
        (["parity"], {"date": "today"}, "parity.weights_sha256 is missing; parity.probes is missing; parity.runtimes"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(path: list[str | int], value: object, problem: str) -> None:
    assert refusal(changed(path, value)).startswith(problem)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (["nmae"], "nmae is an unknown key (did you mean name?)"),
        (["license"], "license is an unknown key (did you mean licence?)"),
        (["input", "orientaton"], "input.orientaton is an unknown key (did you mean orientation?)"),
        (["tiling", "overlaps"], "tiling.overlaps is an unknown key (did you mean overlap?)"),
        (["tiling", "padding", "values"], "tiling.padding.values is an unknown key (did you mean value?)"),
        (["output", "labels", 0, "color"], "output.labels[0].color is an unknown key (did you mean colour?)"),
        (["input", "intensity", 0, "zscroe"], "input.intensity[0].zscroe is an unknown key (did you mean zscore?)"),
        (["something"], "something is an unknown key"),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(path: list[str | int], problem: str) -> None:
    assert refusal(changed(path, 1)) == problem


@pytest.mark.parametrize("key", ["schema", "name", "version", "input", "tiling", "output"])
def test_a_required_field_that_is_missing_is_named(key: str) -> None:
    assert refusal({k: v for k, v in MINIMAL.items() if k != key}) == f"{key} is missing"


@pytest.mark.parametrize("key", ["weights_sha256", "date", "probes", "runtimes"])
def test_a_certificate_must_be_whole(key: str) -> None:
    data = write_card(read_card(MINIMAL).with_parity(CERTIFICATE))
    del data["parity"][key]
    assert refusal(data) == f"parity.{key} is missing"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (
            ["probes", 0, "shape"],
            [1, 2, 3],
            "parity.probes[0].shape expected five edges (N, C, x, y, z), got [1, 2, 3]",
        ),
        (["probes", 1, "seed"], -1, "parity.probes[1].seed expected a whole number of at least 0, got -1"),
        (["probes", 0, "probabilities", 1], "x", "parity.probes[0].probabilities[1] expected a finite number, got 'x'"),
        (["runtimes", 0, "dice"], 1, "parity.runtimes[0].dice expected a list, got 1"),
        (
            ["runtimes", 0, "max_probability_difference"],
            float("nan"),
            "parity.runtimes[0].max_probability_difference expected a finite number, got nan",
        ),
        (["runtimes", 0, "runtime"], "", "parity.runtimes[0].runtime expected text, got ''"),
    ],
)
def test_a_wrong_field_of_a_certificate_is_named_by_its_path(
    path: list[str | int], value: object, problem: str
) -> None:
    data = write_card(read_card(MINIMAL).with_parity(CERTIFICATE))
    at: Any = data["parity"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert refusal(data) == problem


def test_all_problems_are_reported_at_once_in_one_line() -> None:
    data = changed(["name"], "Not Good")
    data["input"]["axes"] = "ABC"
    data["tiling"]["overlap"] = 2
    data["output"]["labels"][0]["colour"] = "red"
    data["extra"] = 1
    del data["version"]
    assert refusal(data).split("; ") == [
        "name expected lower-case letters, digits and hyphens, got 'Not Good'",
        "version is missing",
        "input.axes expected one of XYZ, ZYX, got 'ABC'",
        "tiling.overlap expected a number from 0 to 0.75, got 2",
        "output.labels[0].colour expected a colour such as #e4572e, got 'red'",
        "extra is an unknown key",
    ]


@pytest.mark.parametrize("data", [None, [], "card", 3])
def test_what_is_no_mapping_is_no_card(data: object) -> None:
    assert refusal(data) == f"{data!r}, which is no mapping of fields"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MINIMAL, "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    ),
    st.sampled_from(sorted(MINIMAL)),
)
def test_whatever_stands_in_a_card_the_only_failure_is_a_model_error(value: object, key: str) -> None:
    try:
        card = read_card(MINIMAL | {key: value})
    except ModelError as error:
        assert key in error.got  # noqa: PT017 - a card may also be accepted
    else:
        assert read_card(write_card(card)) == card


def test_the_subject_is_a_model_card_unless_named() -> None:
    with pytest.raises(ModelError, match=r"^model card: expected a valid model card"):
        read_card({})


def test_the_card_of_the_foreign_network_parses() -> None:
    path = Path(__file__).parents[1] / "data" / "meshnet-gwm.card.yaml"
    card = read_card(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    assert card.tiling.patch == (None, None, None)


# Equality


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": "2"},
        {"description": "x"},
        {"licence": "MIT"},
        {"intended_use": "x"},
        {"input": Input((Channel("t1", 1),))},
        {"tiling": Tiling((None, 16, 16))},
        {"output": Output("none", LabelTable((Label(1, "vessel", "#e4572e"),)))},
        {"provenance": {"a": 1}},
        {"parity": CERTIFICATE},
    ],
)
def test_cards_differ_in_any_single_field(change: dict[str, Any]) -> None:
    card = read_card(MINIMAL)
    assert card == read_card(copy.deepcopy(MINIMAL))
    other = replace(card, **change)
    assert card != other
    assert write_card(card) != write_card(other)


SECOND: dict[str, Any] = {
    "schema": SCHEMA_2,
    "name": "brain-tumour",
    "version": "1.0.0",
    "authors": ["A. Author"],
    "citation": "Author et al., 2026",
    "measure": "tubular",
    "input": {
        "axes": "ZYX",
        "channels": [{"name": "t1", "intensity": [{"clip": [0, 400]}]}, {"name": "t2"}],
        "orientation": None,
        "crop": {"to": "above", "threshold": 3, "margin": 2},
        "spacing": [1, 1, 3.5],
        "spacing_unit": "mm",
        "resampling": {"order": 3, "separate_axis": "auto", "when": "before_intensity", "align": "extent"},
        "intensity": [{"zscore": {"within": "nonzero"}}, {"zscore": {"mean": 100.5, "std": 20}}],
    },
    "inference": {
        "patch": [64, 64, 10],
        "divisor": [32, 32, 2],
        "padding": {"to": "patch"},
        "mirror": ["z", "x"],
        "windows": "monai",
    },
    "output": {
        "activation": "sigmoid",
        "labels": [
            {"value": 2, "name": "whole tumour", "channel": 1},
            {"value": 1, "name": "core", "channel": 0, "also": {"code": "D-1"}},
        ],
        "resample": "labels",
        "order": 0,
        "postprocessing": [
            {"keep_largest": [1, 2]},
            {"remove_small": {"labels": [1], "volume": 2.5, "unit": "mm"}},
            {"fill_holes": [2]},
        ],
        "temperature": 1.5,
    },
}


def test_each_field_of_schema_2_reaches_the_card() -> None:
    card = read_card(SECOND)
    first, second = card.input.channels
    assert (card.authors, card.citation, card.measure) == (("A. Author",), "Author et al., 2026", "tubular")
    assert card.input.crop == Crop("above", 3.0, 2)
    assert card.input.resampling == ResamplingRule(3, "auto", "before_intensity", "extent")
    assert card.input.steps(first) == (Window(0, 400),)
    assert card.input.steps(second) == (ZScore("nonzero"), ZScore("all", 100.5, 20.0))
    assert (card.tiling.divisors, card.tiling.mirror) == ((32, 32, 2), (0, 2))
    assert card.tiling.windows == "monai"
    assert [(label.value, label.channel) for label in card.output.table.labels] == [(2, 1), (1, 0)]
    assert card.output.table.labels[1].also == {"code": "D-1"}
    assert (card.output.resample, card.output.order) == ("labels", 0)
    assert card.output.postprocessing == (KeepLargest((1, 2)), RemoveSmall((1,), 2.5, "mm"), FillHoles((2,)))
    assert card.output.temperature == 1.5


def test_a_card_of_schema_2_survives_writing_and_reading() -> None:
    card = read_card(SECOND)
    written = write_card(card)
    assert written["schema"] == SCHEMA_2
    assert read_card(json.loads(json.dumps(written))) == card


@pytest.mark.parametrize(
    "change",
    [
        {"authors": ("A",)},
        {"citation": "C"},
        {"measure": "tubular"},
        {"input": Input((Channel("a", 0),), crop=Crop("nonzero"))},
        {"input": Input((Channel("a", 0, (Window(0, 1),)),))},
        {"input": Input((Channel("a", 0),), resampling=ResamplingRule(3))},
        {"input": Input((Channel("a", 0),), intensity=(ZScore("crop"),), crop=Crop("nonzero"))},
        {"input": Input((Channel("a", 0),), intensity=(ZScore("all", 1.0, 2.0),))},
        {"tiling": Tiling((8, 8, 8), (8, 8, 4))},
        {"tiling": Tiling((8, 8, 8), mirror=(1,))},
        {"tiling": Tiling((8, 8, 8), windows="nnunet")},
        {"output": Output("labels", LabelTable((Label(1, "a"),)))},
        {"output": Output("softmax", LabelTable((Label(1, "a", channel=1),)))},
        {"output": Output("softmax", LabelTable((Label(1, "a", also={"b": 1}),)))},
        {"output": Output("softmax", LabelTable((Label(1, "a"),)), order=0)},
        {"output": Output("softmax", LabelTable((Label(1, "a"),)), resample="labels")},
        {"output": Output("softmax", LabelTable((Label(1, "a"),)), postprocessing=(KeepLargest((1,)),))},
        {"output": Output("softmax", LabelTable((Label(1, "a"),)), temperature=1.5)},
        {
            "parity": replace(
                CERTIFICATE, pipeline=(PipelineParity(1.0, (1.0,), "nnunetv2", "2.8.1", "a.nii", "0" * 64),)
            )
        },
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_what_schema_1_lacks_is_written_in_schema_2_and_read_again(change: dict[str, Any]) -> None:
    card = replace(read_card(MINIMAL), **change)
    assert write_card(read_card(MINIMAL))["schema"] == SCHEMA
    written = write_card(card)
    assert written["schema"] == SCHEMA_2
    assert read_card(json.loads(json.dumps(written))) == card


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (["input", "crop", "to"], "brain", "input.crop.to expected one of nonzero, above, got 'brain'"),
        (["input", "crop", "margin"], -1, "input.crop.margin expected a whole number of at least 0, got -1"),
        (["input", "resampling", "order"], 2, "input.resampling.order expected one of 1, 3, got 2"),
        (["input", "intensity"], [{"zscore": {"mean": 1.0}}], "input.intensity[0].zscore.std goes with mean"),
        (["input", "channels", 0, "intensity"], [{}], "input.channels[0].intensity[0] expected exactly one of"),
        (
            ["input", "channels", 0, "intensity"],
            [{"zscore": {"within": "crop"}}],
            "input.resampling expected when: after_intensity, as a zscore is within: crop",
        ),
        (
            ["inference", "divisor"],
            [32, 2],
            "inference.divisor expected a whole number of at least 1, or three (x, y, z), got [32, 2]",
        ),
        (["inference", "patch"], [64, 64, 9], "inference.patch expected multiples of the divisor (32, 32, 2)"),
        (["inference", "mirror"], ["t"], "inference.mirror[0] expected one of x, y, z, got 't'"),
        (["output", "labels", 0, "channel"], -1, "output.labels[0].channel expected a whole number"),
        (
            ["output", "postprocessing"],
            [{"keep_largest": [7]}],
            "output.postprocessing expected values of output.labels",
        ),
        (["output", "postprocessing"], [{}], "output.postprocessing[0] expected exactly one of"),
        (["output", "temperature"], 0, "output.temperature expected a number above 0, at most 100, got 0"),
        (["output", "activation"], "none", "output.temperature expected 1 for none, which gives no logits, got 1.5"),
        (["tiling"], {}, "tiling is an unknown key"),
        (["input", "crops"], {}, "input.crops is an unknown key (did you mean crop?)"),
    ],
)
def test_a_wrong_field_of_schema_2_is_named_by_its_path(path: list[str | int], value: object, problem: str) -> None:
    data = copy.deepcopy(SECOND)
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert problem in refusal(data)


def test_a_zscore_within_the_crop_needs_one() -> None:
    data = copy.deepcopy(SECOND)
    data["input"] |= {"intensity": [{"zscore": {"within": "crop"}}], "resampling": {}}
    assert read_card(data).input.intensity == (ZScore("crop"),)
    data["input"]["crop"] = None
    assert "input.crop expected one, as a zscore is within: crop" in refusal(data)


@pytest.mark.parametrize("key", ["crop", "resampling"])
def test_what_only_schema_2_has_is_unknown_to_schema_1(key: str) -> None:
    data = copy.deepcopy(MINIMAL)
    data["input"][key] = SECOND["input"][key]
    assert f"input.{key} is an unknown key" in refusal(data)
