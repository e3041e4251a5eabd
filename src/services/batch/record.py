"""Records of a batch: the report of each case, written last, and the table of all cases' statistics."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...domain.cards.writing import write_card
from ...domain.cases import CaseFiles
from ...domain.errors import InputError
from ...domain.job import Job
from ...domain.labels.statistics_file import statistics_rows, table_bytes
from ...domain.plain import plain
from ...domain.run import RunOptions
from ...domain.volume_names import USUAL_FORMAT, MaskFormat
from ...ports.blobs import BlobStore
from ...ports.model import Model
from ..segmentation.report import read_segment_line, segment_line
from .folder import TABLE, BatchFolder, read_json, sha256_of, writing

_SCHEMA = "voxport/batch/1"


@dataclass(frozen=True)
class BatchWork:
    """Model, options and outputs of each case.

    ``runtime`` and ``precision`` are as requested. ``command`` holds the options that name the model and its card, for
    the command in a report.
    """

    model: Model
    options: RunOptions
    outputs: tuple[str, ...] = ("mask",)
    runtime: str = "auto"
    precision: str = "auto"
    command: Mapping[str, str] = field(default_factory=dict)
    mask_format: MaskFormat = USUAL_FORMAT

    def record(self, inputs: Sequence[str]) -> dict[str, Any]:
        """All that the results depend on, as plain data; ``inputs`` are the sha256 of a case's volumes."""
        return {
            **({} if self.mask_format == USUAL_FORMAT else {"format": self.mask_format}),
            "schema": _SCHEMA,
            "inputs": list(inputs),
            "model": self.model.sha256,
            "card": hash_of(write_card(self.model.card)),
            "options": plain(self.options),
            "runtime": self.runtime,
            "precision": self.precision,
            "outputs": list(self.outputs),
        }


@dataclass(frozen=True)
class Made:
    """Statistics, a mapping for each label, and warnings of a case's report."""

    rows: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]


def made_before(folder: BatchFolder, case: CaseFiles, work: BatchWork, inputs: Sequence[str]) -> Made | None:
    """The results of a case if they were made of these volumes by this work and are unchanged; else None."""
    report = read_json(folder.place(case, "report"))
    places = {output: folder.place(case, output) for output in work.outputs}
    written = report.get("batch")
    if not isinstance(written, dict) or not all(place.is_file() for place in places.values()):
        return None
    kept = {name: written.get(name) for name in ("mask", "outputs")}
    if _stated(written) != _stated({**work.record(inputs), **kept}) or not set(work.outputs) <= {
        "mask",
        *_optional(written),
    }:
        return None
    with suppress(OSError):
        return _made(report) if written["mask"] == sha256_of(places["mask"]) else None
    return None


def copy_results(
    folder: BatchFolder, volumes: Path, case: CaseFiles, work: BatchWork, job: Job, blobs: BlobStore
) -> Made:
    """Copy the results of a job that is done into the folder, the report last.

    Optional results of an earlier run are deleted.

    Raises:
        OutputError: the folder cannot be written.
        InputError: a result is missing.
    """
    report = folder.place(case, "report")
    earlier = read_json(report).get("batch")
    with writing(report):
        report.unlink(missing_ok=True)
        for output in set(_optional(earlier)) - set(work.outputs):
            folder.place(case, output).unlink(missing_ok=True)
    for output in sorted(work.outputs, key="mask".__eq__):
        folder.land(folder.place(case, output), partial(blobs.fetch, job.results[output].blob))
    with blobs.open(job.results["report"].blob) as stream:
        data = _report(json.load(stream), folder, volumes, case, work, job)
    folder.land(report, lambda part: part.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8"))
    made = _made(data)
    if made is None:
        raise InputError(case.name, expected="a report of voxport", got="another", do="give all workers one version")
    return made


def _report(
    report: dict[str, Any], folder: BatchFolder, volumes: Path, case: CaseFiles, work: BatchWork, job: Job
) -> dict[str, Any]:
    """A job's report with the names of its files in this folder, and the record of what they depend on."""
    names = {output: folder.place(case, output).relative_to(folder.path).as_posix() for output in work.outputs}
    inputs = [file.sha256 for file in job.case.inputs]
    options = read_segment_line(report["command"], len(inputs))[1] | dict(work.command)
    options["-o"] = str(folder.name / names["mask"])
    return {
        **folder.layout.about(case),
        **report,
        "case": case.name,
        "command": segment_line([str(volumes / name) for name in case.files], options),
        "inputs": [{"name": name, "sha256": sha} for name, sha in zip(case.files, inputs, strict=True)],
        "outputs": [{"name": name, "sha256": job.results[output].sha256} for output, name in names.items()],
        "batch": {**work.record(inputs), "mask": job.results["mask"].sha256},
    }


def _made(report: Mapping[str, Any]) -> Made | None:
    try:
        return Made(tuple(statistics_rows(report["statistics"])), tuple(map(str, report["warnings"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _stated(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the options that have a value: the others are as in versions that lacked them."""
    options = record.get("options")
    if not isinstance(options, dict):
        return dict(record)
    return {**record, "options": {name: value for name, value in options.items() if value is not None}}


def _optional(record: object) -> list[str]:
    outputs = record.get("outputs") if isinstance(record, dict) else None
    return [output for output in ("probabilities", "preview") if isinstance(outputs, list) and output in outputs]


def hash_of(data: object) -> str:
    """Return the sha256 of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


class CohortTable:
    """``statistics.csv``: a row for each label of each done case, with the case in its first column.

    Rows of an earlier run stay until their case has ended; those of other cases than ``cases`` go, unless it is None.
    """

    def __init__(self, folder: BatchFolder, cases: Sequence[CaseFiles] | None) -> None:
        self._folder, self._path = folder, folder.path / TABLE
        self._rows: dict[str, Sequence[Mapping[str, Any]]] = {case.name: () for case in cases or ()}
        self._rows |= {case: rows for case, rows in self._earlier().items() if cases is None or case in self._rows}
        self._written = time.monotonic()

    def put(self, case: str, rows: Sequence[Mapping[str, Any]]) -> None:
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
