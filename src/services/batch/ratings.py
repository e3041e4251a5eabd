"""Ratings of cases, as the page on a batch exports them: which cases to segment again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ...domain.cases import CaseFiles
from ...domain.errors import InputError

RATINGS = ("accept", "reject", "")
_MOST_BYTES = 2**26


def rejected(file: Path, cases: Sequence[CaseFiles]) -> tuple[CaseFiles, ...]:
    """Return the cases that a CSV file with the columns ``case``, ``rating`` and perhaps others rejects.

    Raises:
        InputError: no such file, another table, an unknown rating or case, or a case that is rated twice.
    """
    ratings = _read(file)
    unknown = sorted(ratings.keys() - {case.name for case in cases})
    if unknown:
        got = f"{', '.join(map(repr, unknown[:3]))}{f' and {len(unknown) - 3} others' if len(unknown) > 3 else ''}"
        raise InputError(str(file), expected="cases of this folder", got=got, do="give the ratings of this batch")
    return tuple(case for case in cases if ratings.get(case.name) == "reject")


def _read(file: Path) -> dict[str, str]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InputError(str(file), expected="a table of ratings", got="a large file", do="export it again")
        text = file.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark before the text
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        got = (error.strerror or "an error").lower()
        raise InputError(str(file), expected="a file of ratings", got=got, do="check the path") from None
    except (csv.Error, UnicodeDecodeError):
        raise InputError(str(file), expected="a CSV file in UTF-8", got="another", do="export it again") from None
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        case, rating = row.get("case"), row.get("rating")
        if case is None or rating is None:
            expected, got = "the columns case and rating", ", ".join(map(str, row))[:80]
            raise InputError(f"{file}, row {number}", expected=expected, got=got, do="export it again")
        if rating.strip() not in RATINGS:
            expected, got = "accept, reject or nothing", repr(rating[:40])
            raise InputError(f"{file}, row {number}", expected=expected, got=got, do="correct the rating")
        if case in found:
            expected, got = "one row a case", f"another of {case!r}"
            raise InputError(f"{file}, row {number}", expected=expected, got=got, do="keep one of them")
        found[case] = rating.strip()
    if not found:
        raise InputError(str(file), expected="a row for each case", got="none", do="export it again")
    return found
