"""Values as plain data for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

_LAST_SECOND = 253402300799.0  # of the year 9999, for a retention without end


def plain(value: Any) -> Any:
    """Return dataclasses and mappings as new dictionaries, and sequences as lists, at every depth."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def iso_time(seconds: float | None) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond, and None as None."""
    if seconds is None:
        return None
    time = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not empty, without colours, or its type."""
    lines = (line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]


def one_line(text: object) -> str:
    """Return text without line ends and other control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
