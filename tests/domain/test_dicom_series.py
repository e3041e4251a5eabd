"""Rules and names of DICOM series."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.dicom_series import (
    Instance,
    SeriesFacts,
    SeriesRecord,
    SeriesRule,
    read_record,
    record_mapping,
    resend_seconds,
    rule_of,
)
from voxport.domain.errors import InputError

UIDS = st.from_regex(r"[0-9]([0-9.]{0,62}[0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("rule", "takes"),
    [
        (SeriesRule("pacs"), True),
        (SeriesRule("pacs", modality="CT"), True),
        (SeriesRule("pacs", modality="ct"), True),
        (SeriesRule("pacs", modality="MR"), False),
        (SeriesRule("pacs", description="*portal*"), True),
        (SeriesRule("pacs", description="portal"), False),
        (SeriesRule("pacs", body_part="ABD*", modality="C?"), True),
        (SeriesRule("pacs", body_part="HEAD"), False),
        (SeriesRule("pacs", modality="[CM]T", description="abdomen portal"), True),
    ],
)
def test_a_rule_takes_a_series_by_patterns_in_any_case(rule: SeriesRule, takes: bool) -> None:
    assert rule.takes(SeriesFacts("1.2", "CT ", "Abdomen Portal", "ABDOMEN")) is takes


def test_an_empty_field_is_taken_by_rules_that_do_not_ask_for_it() -> None:
    assert SeriesRule("pacs", description="*").takes(SeriesFacts("1.2"))
    assert not SeriesRule("pacs", modality="CT").takes(SeriesFacts("1.2"))


def test_the_first_rule_that_takes_a_series_counts() -> None:
    narrow, wide = SeriesRule("pacs", "liver", description="*portal*"), SeriesRule("pacs", "body", modality="CT")
    assert rule_of([narrow, wide], SeriesFacts("1", "CT", "portal phase")) is narrow
    assert rule_of([narrow, wide], SeriesFacts("1", "CT", "scout")) is wide
    assert rule_of([narrow, wide], SeriesFacts("1", "MR", "scout")) is None


@pytest.mark.parametrize("uid", ["", ".1", "1.", "1.2/3", "../1", "1" * 65, "1.2 ", "1.a", "\uff11.2", "1.2\n"])
def test_what_is_no_uid_is_refused(uid: str) -> None:
    facts = SeriesFacts("1.2")
    with pytest.raises(InputError):
        Instance(uid, "1.2", facts)
    with pytest.raises(InputError):
        Instance("1.2", uid, facts)
    with pytest.raises(InputError):
        Instance("1.2", "1.2", SeriesFacts(uid))


@given(UIDS, st.text(max_size=20), st.frozensets(UIDS, max_size=5), st.none() | st.floats(0, 1e10))
def test_a_record_survives_as_json(study: str, text: str, uids: frozenset[str], ended: float | None) -> None:
    record = SeriesRecord(SeriesFacts(study, "CT", text, text), "sending", uids, "m:1", "id", text, 3, ended)
    assert read_record(json.loads(json.dumps(record_mapping(record)))) == record


def test_a_mask_is_sent_again_after_longer_and_longer_waits() -> None:
    assert [resend_seconds(attempts) for attempts in (1, 2, 3, 8, 9, 1000)] == [5, 10, 20, 600, 600, 600]
