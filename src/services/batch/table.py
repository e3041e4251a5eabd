"""The statistics of a whole cohort in one table."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...domain.cases import CaseFiles
from ...domain.labels.statistics_file import table_bytes
from .folder import TABLE, BatchFolder

Rows = Sequence[Mapping[str, Any]]


class CohortTable:
    """``statistics.csv``: a row for each label of each done case, with the case in its first column.

    Rows of an earlier run stay until their case has ended.
    """

    def __init__(self, folder: BatchFolder, cases: Sequence[CaseFiles]) -> None:
        self._folder, self._path = folder, folder.path / TABLE
        self._rows: dict[str, Rows] = {case.name: () for case in cases}
        self._rows |= {case: rows for case, rows in self._earlier().items() if case in self._rows}
        self._written = time.monotonic()

    def put(self, case: str, rows: Rows) -> None:
        """Replace a case's rows."""
        self._rows[case] = [{"case": case, **row} for row in rows]

    def write(self, *, at_least_every: float = 0.0) -> None:
        """Write the table, unless it was written less than ``at_least_every`` seconds ago. Raises OutputError."""
        if time.monotonic() - self._written < at_least_every:
            return
        content = table_bytes([row for rows in self._rows.values() for row in rows], "case")
        self._folder.land(self._path, lambda part: part.write_bytes(content))
        self._written = time.monotonic()

    def _earlier(self) -> dict[str, list[dict[str, Any]]]:
        try:
            text = self._path.read_bytes().decode(errors="surrogateescape")
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except (OSError, csv.Error):
            return {}
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row.get("case") and None not in row:
                found.setdefault(row["case"], []).append(row)
        return found
