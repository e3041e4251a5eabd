"""The options of a run are the same for the command line, forms, arrays, the client and stored jobs."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.contract.options import ARRAY, REMOTE, encode, option_fields, options_of
from voxport.contract.service import ArrayBody
from voxport.domain.errors import UsageError
from voxport.domain.reading import LENGTH_UNITS, Reading
from voxport.domain.run import BLENDINGS, ArrayOptions, RemoteOptions, RunOptions
from voxport.services.jobs.run import options_of as stored_options

values = st.fixed_dictionaries(
    {
        "overlap": st.none() | st.floats(0, 0.75),
        "patch": st.none() | st.tuples(*[st.integers(1, 512)] * 3),
        "blending": st.none() | st.sampled_from(BLENDINGS),
        "nan_as": st.none() | st.floats(-1e6, 1e6),
        "threshold": st.none() | st.floats(0.01, 0.99),
        "spacing": st.none() | st.tuples(*[st.floats(1e-6, 1e6)] * 3),
        "unit": st.none() | st.sampled_from(list(LENGTH_UNITS)),
        "axes": st.none() | st.sampled_from(["ZYX", "CZYX", "TCZYX"]),
        "channel": st.none() | st.sampled_from(["0", "0,2", "GFP, green"]),
        "timepoint": st.none() | st.integers(0, 10**6),
        "level": st.none() | st.integers(0, 30),
        "series": st.none() | st.sampled_from(["1.2.840.1", "/volumes/raw"]),
    }
)


@given(values)
def test_options_that_travel_as_a_form_arrive_as_they_were(options: dict[str, Any]) -> None:
    texts = {name: text for name, (text,) in encode(options).items()}
    kinds = {"overlap": float, "nan_as": float, "threshold": float, "timepoint": int, "level": int}
    numbers = {name: kinds.get(name, str)(text) for name, text in texts.items()}
    assert options_of(numbers, memory_bytes=None) == RunOptions(**options)


@given(values)
def test_options_that_are_stored_with_a_job_are_read_back(options: dict[str, Any]) -> None:
    made = RunOptions(**options, memory_bytes=10**9)
    assert stored_options(json.loads(json.dumps(asdict(made)))) == made


def test_the_clients_keyword_arguments_are_the_options_that_a_server_takes() -> None:
    assert set(get_type_hints(RemoteOptions)) == set(REMOTE)
    assert set(REMOTE) < {field.name for field in fields(RunOptions)}
    assert set(get_type_hints(ArrayOptions)) == set(ARRAY)
    assert set(REMOTE) - set(ARRAY) == {field.name for field in fields(Reading)}
    assert set(ARRAY) < set(ArrayBody.model_fields)
    assert list(option_fields()) == list(REMOTE)


def test_an_option_that_servers_do_not_take_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="unknown options memory_bytes; expected some of overlap, patch"):
        encode({"memory_bytes": 10**9})


def test_an_array_takes_no_option_that_says_how_a_volume_is_stored() -> None:
    array = {"spacing": (1.0, 1.0, 2.0), "unit": "um", "axes": "ZYX", "overlap": 0.5}
    assert options_of(array, memory_bytes=None, names=ARRAY) == RunOptions(overlap=0.5)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1;2;3", "1,-2,3"])
def test_a_patch_that_is_not_three_whole_numbers_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="patch: expected X,Y,Z in voxels, got"):
        options_of({"patch": text}, memory_bytes=None)
