"""Answers of a server as values, checked with the contract: reports, predictions and jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ..contract.job import JobAnswer
from ..contract.problem import URN
from ..contract.reading import problems_of
from ..contract.service import Prediction
from ..domain.errors import CancelledError, VoxportError
from ..domain.job import ENDED, JobFailure, JobState
from ..domain.labels.label_map import Label, Labels, Logits
from ..domain.report import FileReport, Report
from ..domain.run import RESULT_FILES
from ..domain.volume_names import USUAL_FORMAT, MaskFormat
from .errors import RemoteError, one_line, problem_error
from .forms import is_model_reference, localised

JSON = "application/json"
T = TypeVar("T")
JobInput = FileReport
# Fields that a job has here as in the server's answer.
_SAME = (
    "id",
    "state",
    "cancelling",
    "model",
    "submitted",
    "started",
    "ended",
    "expires",
    "position",
    "attempts",
    "format",
)


@dataclass(frozen=True, eq=False)
class PredictResult:
    """The answer to ``Client.predict``.

    Attributes:
        segmentation: labels ``(X, Y, Z)``, of the smallest unsigned type that holds them, read-only.
        labels: meanings of the values; 0 is background.
        statistics: per label, as in a report.
        model: name, version and sha256 of the model.
        runtime: name, device and precision of the runtime.
        timings: seconds of each stage.
        warnings: what to know about this result.
        probabilities: ``(K, X, Y, Z)`` if requested, read-only.
    """

    segmentation: Labels
    labels: tuple[Label, ...]
    statistics: Mapping[str, Any]
    model: Mapping[str, Any]
    runtime: Mapping[str, Any]
    timings: Mapping[str, float]
    warnings: tuple[str, ...]
    probabilities: Logits | None = None


@dataclass(frozen=True)
class ModelResult:
    """One model's part of ``Client.segment_many``: a report and its files, or an error.

    Attributes:
        model: ``NAME:VERSION``; as requested if it failed.
        report: the report of its run.
        files: written files, by the names ``mask.nii.gz``, ``statistics.csv`` and so on.
        error: why there is no mask.
    """

    model: str
    report: Mapping[str, Any] | None
    files: Mapping[str, Path]
    error: VoxportError | None = None


@dataclass(frozen=True)
class RemoteJob:
    """A job of a server, as it was when the server was asked. Times are in UTC.

    Attributes:
        id: identifies it, here and on the server.
        state: queued, running, done, failed, cancelled, or parked: dead-lettered after too many failed attempts.
        cancelling: it runs, and stops at its next tile.
        model: ``NAME:VERSION``.
        inputs: name and sha256 of each volume; with local names if it was submitted or waited for from here.
        outputs: the results that it will have: mask, statistics and so on.
        submitted: when the server accepted it.
        started: when its last run began.
        ended: when it ended.
        expires: when the server will delete it; None until it ended.
        position: number of jobs before it in the queue; None unless it is queued.
        attempts: number of runs that began.
        tiles_done: of this attempt.
        tiles_total: of the job; 0 until that is known.
        eta_seconds: until it ends; None where nothing is known.
        failure: why the last run failed, also while the job waits for its next attempt.
        results: sha256 of each result, by output; none until it is done.
        volumes: the files that were sent; none if the job is known by its id alone.
        format: of the mask.
    """

    id: str
    state: JobState
    cancelling: bool
    model: str
    inputs: tuple[JobInput, ...]
    outputs: tuple[str, ...]
    submitted: datetime
    started: datetime | None
    ended: datetime | None
    expires: datetime | None
    position: int | None
    attempts: int
    tiles_done: int
    tiles_total: int
    eta_seconds: float | None
    failure: JobFailure | None
    results: Mapping[str, str] = field(hash=False)
    volumes: tuple[Path, ...] = ()
    format: MaskFormat = USUAL_FORMAT

    @property
    def has_ended(self) -> bool:
        """Whether it changes only if it is retried."""
        return self.state in ENDED

    @property
    def error(self) -> VoxportError | None:
        """The error of a job that ended without a result, of the class of a local run; None of any other."""
        if self.state == "cancelled":
            return CancelledError()
        if self.state not in ("failed", "parked"):
            return None
        if self.failure is None:
            got, do = f"one that {self.state} for no reason given", "ask who runs the server"
            return RemoteError(f"job {self.id}", expected="one that is done", got=got, do=do)
        return problem_error({"type": URN + self.failure.kind, "detail": self.failure.detail}, f"job {self.id}")


def json_object(body: bytes, url: str) -> dict[str, Any]:
    """Return a JSON object from its bytes. Raises RemoteError."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteError.wrong_answer(url, expected="JSON", got="something else under its name") from None
    if not isinstance(data, dict):
        raise RemoteError.wrong_answer(url, expected="a JSON object", got=f"a {type(data).__name__}")
    return data


def checked(kind: type[T], data: object, url: str, what: str) -> T:
    """Return an answer as a value of the contract. Raises RemoteError, which names the first wrong part."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        path, words = problems_of(error)[0]
        got = f"one without '{path}'" if words == "is missing" else f"one whose {path or 'content'} {words}"
    except OverflowError:
        got = "one with a number that is too large"
    raise RemoteError.wrong_answer(url, expected=what, got=one_line(got))


def checked_report(data: object, url: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a report with each text on one line, and the local ``names`` of volumes in warnings.

    Raises:
        RemoteError: a part is missing or wrong.
    """
    model = checked(Report, data, url, "a report").model
    if not is_model_reference(f"{model.name}:{model.version}"):
        raise RemoteError.wrong_answer(url, expected="a report of a model", got="one whose name is none")
    report: dict[str, Any] = json.loads(json.dumps(data))
    for label in report["statistics"]["labels"]:
        label["name"] = one_line(label["name"])
    lists = report["statistics"].get("uncertainty") or {}
    for spot in (spot for kind in ("places", "pieces", "slices") for spot in lists.get(kind, ())):
        spot["label"], spot["why"] = one_line(spot["label"]), one_line(spot["why"])
    report["warnings"] = [localised(one_line(warning), names) for warning in report["warnings"]]
    return report


def predict_result(data: Mapping[str, Any], shape: tuple[int, ...], url: str) -> PredictResult:
    """Return the prediction for an array whose last three axes are ``shape``. Raises RemoteError."""
    found = checked(Prediction, {**data, "segmentation": [], "probabilities": []}, url, "a prediction")
    try:
        values, logits = np.array(data.get("segmentation")), data.get("probabilities")
        probabilities = None if logits is None else _frozen(np.array(logits, dtype=np.float32))
    except (TypeError, ValueError, OverflowError):
        raise RemoteError.wrong_answer(url, expected="a prediction", got="one with ragged arrays") from None
    if values.shape != shape or (probabilities is not None and probabilities.shape[1:] != shape):
        got = f"{values.shape}" if probabilities is None else f"{values.shape} and {probabilities.shape}"
        raise RemoteError.wrong_answer(url, expected=f"labels of shape {shape}", got=got)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0:
        raise RemoteError.wrong_answer(url, expected="labels from 0 on", got=f"other {values.dtype}")
    return PredictResult(
        segmentation=_frozen(values.astype(np.min_scalar_type(values.max()))),
        labels=tuple(Label(label.value, label.name, label.colour) for label in found.labels),
        statistics=data["statistics"],
        model=data["model"],
        runtime=data["runtime"],
        timings=found.timings,
        warnings=tuple(map(one_line, found.warnings)),
        probabilities=probabilities,
    )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def remote_job(data: object, url: str, volumes: Sequence[Path] = (), id: str | None = None) -> RemoteJob:
    """Return a job from the server's answer; without ``volumes`` of this machine, the server's names stay.

    Raises:
        RemoteError: a part is missing or wrong, or the job is another.
    """
    names = [str(path) for path in volumes]
    job = checked(JobAnswer, _without_new_outputs(data), url, "a job")
    if id not in (None, job.id):
        raise RemoteError.wrong_answer(url, expected=f"job {id}", got=f"job {job.id}")
    if job.state == "done" and not {"mask", "report"} <= set(job.results):
        raise RemoteError.wrong_answer(url, expected="a job with its mask and report", got="one without")
    if names and len(names) != len(job.inputs):
        expected = f"a job of {len(names)} volumes"
        raise RemoteError.wrong_answer(url, expected=expected, got=f"one of {len(job.inputs)}")
    names = names or [one_line(file.name) for file in job.inputs]
    failure = None
    if job.problem is not None:
        detail = localised(one_line(job.problem.detail or job.problem.title), names)
        failure = JobFailure(one_line(job.problem.type).removeprefix(URN), detail)
    return RemoteJob(
        **{name: getattr(job, name) for name in _SAME},
        inputs=tuple(JobInput(name, file.sha256) for name, file in zip(names, job.inputs, strict=True)),
        outputs=tuple(name for name in RESULT_FILES if name in job.outputs),
        tiles_done=job.tiles.done,
        tiles_total=job.tiles.total,
        eta_seconds=job.eta_seconds,
        failure=failure,
        results={name: result.sha256 for name, result in job.results.items()},
        volumes=tuple(volumes),
    )


def _without_new_outputs(data: object) -> object:
    """Leave out the outputs that a later version of the server may add."""
    if not isinstance(data, Mapping):
        return data
    kept = dict(data)
    if isinstance(data.get("outputs"), list):
        kept["outputs"] = [name for name in data["outputs"] if name in RESULT_FILES]
    if isinstance(data.get("results"), Mapping):
        kept["results"] = {name: result for name, result in data["results"].items() if name in RESULT_FILES}
    return kept
