"""DICOM series that a node receives: how they are named, which model a rule gives them, and how far they have come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from .errors import InputError

# PS3.5 section 6.2: digits and dots, at most 64.
_UID = re.compile(r"[0-9](?:[0-9.]{0,62}[0-9])?")
SeriesState = Literal["receiving", "submitted", "failed", "sending", "sent", "ignored"]
_LONGEST_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class SeriesFacts:
    """What a series says of itself, as far as rules ask for it; a field that it lacks is empty."""

    study: str
    modality: str = ""
    description: str = ""
    body_part: str = ""


@dataclass(frozen=True)
class Instance:
    """The names of one DICOM object, and the facts of its series.

    ``is_image``: it has pixels of its own; segmentations, doses, reports and presentation states have none to segment.

    Raises:
        InputError: a UID that is none.
    """

    uid: str
    series: str
    facts: SeriesFacts
    is_image: bool = True

    def __post_init__(self) -> None:
        for name, uid in (("SOP", self.uid), ("Series", self.series), ("Study", self.facts.study)):
            if not _UID.fullmatch(uid):
                expected, do = f"a {name} Instance UID of digits and dots", "export it again"
                raise InputError("DICOM object", expected=expected, got="none" if not uid else "another", do=do)


@dataclass(frozen=True)
class SeriesRule:
    """Which series go to a model, and where their masks go.

    Patterns are those of file names (``*``, ``?``, ``[ab]``), in any letter case; an empty one takes every series.

    Args:
        send_to: name of the peer that receives the masks.
        model: name of a model, or ``name:version``; the default model for None.
        modality, description, body_part: patterns of Modality, SeriesDescription and BodyPartExamined.
    """

    send_to: str
    model: str | None = None
    modality: str = ""
    description: str = ""
    body_part: str = ""

    def takes(self, facts: SeriesFacts) -> bool:
        """Whether a series is one of this rule's."""
        pairs = (
            (self.modality, facts.modality),
            (self.description, facts.description),
            (self.body_part, facts.body_part),
        )
        return all(not pattern or fnmatchcase(stated.strip().lower(), pattern.lower()) for pattern, stated in pairs)


def rule_of(rules: Sequence[SeriesRule], facts: SeriesFacts) -> SeriesRule | None:
    """Return the first rule that takes a series."""
    return next((rule for rule in rules if rule.takes(facts)), None)


@dataclass(frozen=True)
class SeriesRecord:
    """How far a series has come.

    Args:
        uids: the instances that its job has; empty before the first job.
        model, job, send_to: of the job.
        attempts: to send the mask.
        ended: when it reached its state, in seconds since 1970; None for a state that is no end.
    """

    facts: SeriesFacts
    state: SeriesState = "receiving"
    uids: frozenset[str] = frozenset()
    model: str = ""
    job: str = ""
    send_to: str = ""
    attempts: int = 0
    ended: float | None = None


def record_mapping(record: SeriesRecord) -> dict[str, Any]:
    """Return a record as plain data."""
    return {**asdict(record), "uids": sorted(record.uids)}


def read_record(data: Mapping[str, Any]) -> SeriesRecord:
    """Build a record from plain data."""
    return SeriesRecord(**{**data, "facts": SeriesFacts(**data["facts"]), "uids": frozenset(data["uids"])})


def resend_seconds(attempts: int) -> float:
    """Wait after ``attempts`` failed attempts to send: 5 s, doubled each time, at most 10 minutes."""
    return float(min(5.0 * 2.0 ** min(max(attempts - 1, 0), 10), _LONGEST_WAIT_SECONDS))
