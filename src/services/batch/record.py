"""A case's report in the folder of results: written last, it is the record that the case is done, and of what."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...domain.cards.writing import write_card
from ...domain.cases import CaseFiles
from ...domain.errors import InputError
from ...domain.job import Job
from ...domain.run import RunOptions
from ...ports.blobs import BlobStore
from ...ports.model import Model
from ..segmentation.report import segment_line
from ..segmentation.statistics_file import statistics_rows
from .folder import BatchFolder, read_json, sha256_of, writing

_SCHEMA = "voxport/batch/1"


@dataclass(frozen=True)
class BatchWork:
    """What is made of each case, and by what.

    Args:
        model: with the card that counts.
        options: what to do differently from the card.
        outputs: the results that are kept: the mask, and any of the probabilities and the preview.
        runtime: as it was asked for, as is ``precision``.
        command: options that name the model and its card again, for who types the command of one case.
    """

    model: Model
    options: RunOptions
    outputs: tuple[str, ...] = ("mask",)
    runtime: str = "auto"
    precision: str = "auto"
    command: Mapping[str, str] = field(default_factory=dict)

    def record(self, inputs: Sequence[str]) -> dict[str, Any]:
        """All that the results depend on, as plain data; ``inputs`` are the sha256 of a case's volumes, in order."""
        made = {
            "schema": _SCHEMA,
            "inputs": list(inputs),
            "model": self.model.sha256,
            "card": _hash(write_card(self.model.card)),
            "options": asdict(self.options),
            "runtime": self.runtime,
            "precision": self.precision,
            "outputs": list(self.outputs),
        }
        plain: dict[str, Any] = json.loads(json.dumps(made))
        return plain

    @property
    def hash(self) -> str:
        """Of what is the same for all cases."""
        return _hash(self.record(()))

    def key(self, token: str, case: CaseFiles, inputs: Sequence[str]) -> str:
        """Names the job of a case: the same case of the same bytes, with the same to be done, is the same job."""
        return _hash([token, case.name, case.files, self.record(inputs)])


@dataclass(frozen=True)
class Made:
    """What a case's report says of its results: statistics, a mapping for each label, and what the run warned of."""

    rows: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]


def made_before(folder: BatchFolder, case: CaseFiles, work: BatchWork, inputs: Sequence[str]) -> Made | None:
    """What is there of a case if it was made of these volumes by this work, and lies there as it was made."""
    report = read_json(folder.place(case.name, "report"))
    places = {output: folder.place(case.name, output) for output in work.outputs}
    written = report.get("batch")
    if not isinstance(written, dict) or not all(place.is_file() for place in places.values()):
        return None
    kept = {name: written.get(name) for name in ("mask", "outputs")}
    if written != {**work.record(inputs), **kept} or not set(work.outputs) <= {"mask", *_optional(written)}:
        return None
    with suppress(OSError):
        return _made(report) if written["mask"] == sha256_of(places["mask"]) else None
    return None


def take_in(folder: BatchFolder, volumes: Path, case: CaseFiles, work: BatchWork, job: Job, blobs: BlobStore) -> Made:
    """Write a job's results into the folder, the report last; those of an earlier run that are not wanted now go.

    Args:
        folder: of the results.
        volumes: the folder that the case's names are below, as it was named.
        case: what was segmented.
        work: what was to be made of it.
        job: that is done.
        blobs: where its results are.

    Raises:
        OutputError: they cannot be written.
        InputError: one is missing.
    """
    report = folder.place(case.name, "report")
    earlier = read_json(report).get("batch")
    with writing(report):
        report.unlink(missing_ok=True)
        for output in set(_optional(earlier)) - set(work.outputs):
            folder.place(case.name, output).unlink(missing_ok=True)
    for output in sorted(work.outputs, key="mask".__eq__):
        folder.land(folder.place(case.name, output), partial(blobs.fetch, job.results[output].blob))
    with blobs.open(job.results["report"].blob) as stream:
        data = _report(json.load(stream), folder, volumes, case, work, job)
    folder.land(report, lambda part: part.write_text(json.dumps(data, indent=2) + "\n"))
    made = _made(data)
    if made is None:
        raise InputError(case.name, expected="a report of voxport's", got="another", do="see that workers are alike")
    return made


def _report(
    report: dict[str, Any], folder: BatchFolder, volumes: Path, case: CaseFiles, work: BatchWork, job: Job
) -> dict[str, Any]:
    """A job's report with the names that its files have here, and what they depend on."""
    names = {output: folder.place(case.name, output).relative_to(folder.path).as_posix() for output in work.outputs}
    inputs = [file.sha256 for file in job.case.inputs]
    words = shlex.split(report["command"])[2 + len(inputs) :]
    options = dict(zip(words[::2], words[1::2], strict=True)) | dict(work.command)
    options["-o"] = str(folder.name / names["mask"])
    return report | {
        "command": segment_line([str(volumes / name) for name in case.files], options),
        "inputs": [{"name": name, "sha256": sha} for name, sha in zip(case.files, inputs, strict=True)],
        "outputs": [{"name": name, "sha256": job.results[output].sha256} for output, name in names.items()],
        "batch": {**work.record(inputs), "mask": job.results["mask"].sha256},
    }


def _made(report: Mapping[str, Any]) -> Made | None:
    """What a report says; None where it is not a report."""
    try:
        return Made(tuple(statistics_rows(report["statistics"])), tuple(map(str, report["warnings"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _optional(record: object) -> list[str]:
    outputs = record.get("outputs") if isinstance(record, dict) else None
    return [output for output in ("probabilities", "preview") if isinstance(outputs, list) and output in outputs]


def _hash(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
