"""What the service answers, checked before it is believed, and as values where a mapping would be too little."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import VoxportError
from ..domain.geometry.grid import UNITS
from ..domain.labels.label_map import Label, Labels, Logits
from ..domain.run import BLENDINGS
from .errors import RemoteError, one_line
from .fields import model_folder

JSON = "application/json"


@dataclass(frozen=True, eq=False)
class PredictResult:
    """The answer to ``Client.predict``.

    Attributes:
        segmentation: labels ``(X, Y, Z)``, of the smallest unsigned type that holds them, read-only.
        labels: what the values mean; 0 is background.
        statistics: per label, as in a report.
        model: name, version and sha256 of what scored.
        runtime: what it ran in.
        timings: seconds of each stage.
        warnings: what to know about this result.
        probabilities: ``(K, X, Y, Z)`` where they were asked for, read-only.
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
    """One model's part of ``Client.segment_many``: a report and where its files are, or an error.

    Attributes:
        model: ``NAME:VERSION``; as it was asked for where it failed.
        report: the provenance of its run.
        files: what was written, by the names ``mask.nii.gz``, ``statistics.csv`` and so on.
        error: why there is no mask.
    """

    model: str
    report: Mapping[str, Any] | None
    files: Mapping[str, Path]
    error: VoxportError | None = None


def json_object(body: bytes, url: str) -> dict[str, Any]:
    """A JSON object from its bytes. Raises RemoteError."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteError.wrong_answer(url, expected="JSON", got="something else under its name") from None
    if not isinstance(data, dict):
        raise RemoteError.wrong_answer(url, expected="a JSON object", got=f"a {type(data).__name__}")
    return data


def predict_result(data: Mapping[str, Any], shape: tuple[int, ...], url: str) -> PredictResult:
    """The answer to an array whose last three axes are ``shape``. Raises RemoteError."""
    try:
        segmentation = _labels(data["segmentation"])
        logits = data.get("probabilities")
        probabilities = None if logits is None else _frozen(np.array(logits, dtype=np.float32))
        result = PredictResult(
            segmentation=segmentation,
            labels=tuple(Label(int(x["value"]), str(x["name"]), str(x["colour"])) for x in data["labels"]),
            statistics=_mapping(data["statistics"]),
            model=_mapping(data["model"]),
            runtime=_mapping(data["runtime"]),
            timings={str(name): float(seconds) for name, seconds in data["timings"].items()},
            warnings=tuple(one_line(warning) for warning in data["warnings"]),
            probabilities=probabilities,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise malformed(url, "a prediction", error) from None
    if segmentation.shape != shape or (probabilities is not None and probabilities.shape[1:] != shape):
        got = f"{segmentation.shape}" if probabilities is None else f"{segmentation.shape} and {probabilities.shape}"
        raise RemoteError.wrong_answer(url, expected=f"labels of shape {shape}", got=got)
    return result


def checked_report(data: object, url: str, localised: Callable[[str], str]) -> dict[str, Any]:
    """A report with what every reader of one needs.

    Args:
        data: what came.
        url: the server.
        localised: puts the volumes' local names into warnings.

    Raises:
        RemoteError: a part is missing, or of the wrong kind.
    """
    try:
        report = dict(_mapping(data))
        for label in report["statistics"]["labels"]:
            label["name"] = one_line(label["name"])
            _ = int(label["voxels"]), int(label["components"]), float(label["volume"])
        _ = [entry["sha256"] for entry in report["inputs"]]
        _ = [int(n) for n in (*report["grid"]["shape"], *report["tiles"]["tile"], report["tiles"]["count"])]
        named = model_folder(f"{report['model']['name']}:{report['model']['version']}")
        if named is None or report["grid"]["unit"] not in UNITS or report["tiles"]["blending"] not in BLENDINGS:
            raise ValueError("a model, a unit or a blending that there is not")
        report["seconds"] = {str(stage): float(seconds) for stage, seconds in report["seconds"].items()}
        report["warnings"] = [localised(one_line(warning)) for warning in report["warnings"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise malformed(url, "a report", error) from None
    return report


def malformed(url: str, what: str, error: Exception) -> RemoteError:
    """The error for an answer in which looking for what must be in it raised ``error``."""
    missing = f"one without {error}" if isinstance(error, KeyError) else "one that is put together wrongly"
    return RemoteError.wrong_answer(url, expected=what, got=one_line(missing))


def _labels(nested: Any) -> Labels:
    values = np.array(nested)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0:
        raise ValueError("labels are whole numbers from 0 on")
    return _frozen(values.astype(np.min_scalar_type(values.max())))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _mapping(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TypeError("a mapping is needed")
    return data
