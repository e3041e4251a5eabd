"""A server with voxport's HTTP contract and no network to score with: voxels above the mean are the one label."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import socket
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import uvicorn
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from voxport.domain.errors import InputError, LimitError, ModelError, UsageError, VoxportError
from voxport.domain.geometry.grid import Box, Grid, shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.labels.statistics import LabelStatistics, StatisticsAccumulator
from voxport.domain.labels.statistics_file import statistics_bytes
from voxport.domain.report import grid_mapping, statistics_mapping

from .standin_jobs import Case, StandinJob, StandinQueue

MODELS = ("two-photon-vessels:1.0.0", "two-photon-vessels:1.1.0", "kidneys:2.0.0-rc.1")
OUTPUTS = ("mask", "probabilities", "statistics", "preview", "report")
LARGEST_BODY, LARGEST_ARRAY = 2**25, 2**16
TABLE = LabelTable((Label(1, "vessel", "#e4572e"),))
PNG = b"\x89PNG\r\n\x1a\n and the rest of a picture"


@dataclass
class Refused(Exception):  # noqa: N818 - not an error of the program
    """A problem that is no VoxportError's."""

    kind: str
    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Standin:
    """Handlers of all paths. ``keys`` are asked for where there are any; ``busy`` refuses to score."""

    keys: Sequence[str] = ()
    busy: bool = False
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    queue: StandinQueue = field(default_factory=StandinQueue)

    def app(self) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            Route("/v1/plan", self.plan, methods=["POST"]),
            Route("/segment", self.segment, methods=["POST"]),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/v1/jobs", self.submit, methods=["POST"]),
            Route("/v1/jobs", self.jobs),
            Route("/v1/jobs/{id}", self.job, methods=["GET", "DELETE"]),
            Route("/v1/jobs/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/jobs/{id}/retry", self.retry, methods=["POST"]),
            Route("/v1/jobs/{id}/{name}", self.of_job),
        ]
        handlers: Any = {VoxportError: _refuse, Refused: _refuse, Exception: _refuse}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def health(self, request: Request) -> Response:
        self.check(request)
        status = "unavailable" if self.busy else "ok"
        return JSONResponse({"status": status, "models": list(MODELS), "in_flight": 0}, 503 if self.busy else 200)

    async def models(self, request: Request) -> Response:
        self.check(request)
        listed = [_listed(reference) for reference in MODELS]
        return JSONResponse({"default": MODELS[1], "models": listed, "broken": []})

    async def model(self, request: Request) -> Response:
        self.check(request)
        reference = _found(request.path_params["name"])
        return JSONResponse(_listed(reference) | {"card": {"name": reference.split(":")[0]}, "sha256": "0" * 64})

    async def plan(self, request: Request) -> Response:
        self.check(request)
        async with request.form() as form:
            image, _ = await _case(form)
            data = {"tiles": 1, "tile": list(image.shape[:3]), "warnings": ["volume_1.nii.gz: thin"]}
            return JSONResponse(data | {"seconds": 0.1, "peak_bytes": 1, "model": MODELS[1]})

    async def segment(self, request: Request) -> Response:
        self.check(request)
        async with request.form() as form:
            outputs = self.looked_over(form)
            image, hashes = await _case(form)
            return _answer(request, form, outputs, image, hashes)

    def looked_over(self, form: FormData) -> list[str]:
        """The outputs that a form asks for; refuses what cannot be done."""
        if self.busy:
            raise Refused("busy", 503, "server: expected room in the queue, got 17 waiting; ask", {"Retry-After": "7"})
        fields = {name: form.getlist(name) for name in form if name != "volume"}
        self.seen.append(fields | {"files": [f.filename for f in form.getlist("volume")]})  # type: ignore[union-attr]
        outputs = [str(output) for output in form.getlist("outputs")] or ["mask"]
        if unknown := set(outputs) - set(OUTPUTS):
            raise UsageError("outputs", expected=", ".join(OUTPUTS), got=", ".join(unknown), do="correct it")
        if float(str(form.get("threshold", "0.5"))) > 1:
            raise UsageError("threshold", expected="0 to 1", got=str(form["threshold"]), do="0.5 is usual")
        return outputs

    async def submit(self, request: Request) -> Response:
        self.check(request)
        async with request.form() as form:
            outputs = self.looked_over(form)
            image, hashes = await _case(form)
            reference = _found(str(form.get("model", MODELS[1])))
            files, _ = _members(image, reference, hashes, form)
            fields = {name: form.getlist(name) for name in form if name != "volume"}
            key = request.headers.get("Idempotency-Key")
            try:
                job, again = self.queue.submit(key, Case(reference, files, hashes, (fields, hashes)), outputs)
            except KeyError:
                expected = "the case that it was used for"
                raise UsageError(f"key {key}", expected=expected, got="another", do="take a new key") from None
            headers = {"Location": f"/v1/jobs/{job.id}"} | ({"Idempotency-Replayed": "true"} if again else {})
            return JSONResponse(job.told(), 202, headers)

    async def jobs(self, request: Request) -> Response:
        self.check(request)
        return self.queue.list(request)

    async def job(self, request: Request) -> Response:
        job = self.found(request)
        return self.queue.delete(job) if request.method == "DELETE" else self.queue.one(job)

    async def cancel(self, request: Request) -> Response:
        return self.queue.cancel(self.found(request))

    async def retry(self, request: Request) -> Response:
        job = self.found(request)
        if (answer := self.queue.retry(job)) is None:
            raise Refused("conflict", 409, f"job {job.id}: expected one that failed, got one that is {job.state}; wait")
        return answer

    async def of_job(self, request: Request) -> Response:
        job, name = self.found(request), request.path_params["name"]
        if name == "events":
            return self.queue.events(job)
        answer = self.queue.result(job, name, request.headers.get("Accept", ""))
        if answer is None and job.state != "done":
            raise Refused("conflict", 409, f"{name}: expected one that is done, got one that is {job.state}; wait")
        if answer is None:
            raise Refused("not-found", 404, f"{name}: expected a result that was asked for, got another; see the job")
        return answer

    def found(self, request: Request) -> StandinJob:
        """The job that a path names."""
        self.check(request)
        id = request.path_params["id"]
        if id not in self.queue.jobs:
            raise Refused("unknown-job", 404, f"job {id}: expected one of your jobs, got another id; list your jobs")
        return self.queue.jobs[id]

    async def predict(self, request: Request) -> Response:
        self.check(request)
        async with request.form() as form:
            (upload,) = form.getlist("volume")
            assert isinstance(upload, UploadFile)
            values = np.load(io.BytesIO(await upload.read()), allow_pickle=False)
            if values.size > LARGEST_ARRAY:
                do = "send it as a file to /segment"
                raise LimitError("volume", expected=f"{LARGEST_ARRAY} voxels", got=f"{values.size}", do=do)
            spacing = [float(step) for step in str(form.get("spacing", "1,1,1")).split(",")]
            return JSONResponse(_prediction(values, np.diag([*spacing, 1.0]), form))

    def check(self, request: Request) -> None:
        """Refuse who has no key, and bodies that are too long."""
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.keys and key not in self.keys:
            raise Refused("unauthorised", 401, "a key is needed", {"WWW-Authenticate": "Bearer"})
        if int(request.headers.get("Content-Length", "0")) > LARGEST_BODY:
            length = request.headers["Content-Length"]
            raise LimitError("body", expected=f"at most {LARGEST_BODY} bytes", got=length, do="send less")


async def _refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature is Starlette's
    kinds = {UsageError: ("usage", 422), InputError: ("input", 422), LimitError: ("limit", 413)}
    headers: Mapping[str, str] = {}
    if isinstance(error, VoxportError):
        kind, status = kinds.get(type(error), ("unknown-model", 404))
        body = _problem(kind, status, str(error)) | {"expected": error.expected, "got": error.got, "do": error.do}
    elif isinstance(error, Refused):
        body, status, headers = _problem(error.kind, error.status, error.detail), error.status, error.headers
    else:
        body, status = _problem("internal", 500, "an unexpected error"), 500
    return Response(json.dumps(body), status, dict(headers), "application/problem+json")


def _problem(kind: str, status: int, detail: str) -> dict[str, Any]:
    title, instance = f"Something about {kind}", f"urn:uuid:{uuid.uuid4()}"
    return {
        "type": f"urn:voxport:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
    }


def _listed(reference: str) -> dict[str, Any]:
    name, version = reference.split(":")
    default = reference == MODELS[1]
    return {"name": name, "version": version, "reference": reference, "status": "ready", "default": default}


def _found(reference: str) -> str:
    matching = [known for known in MODELS if reference in (known, known.split(":")[0])]
    if not matching:
        listed = ", ".join(MODELS)
        raise ModelError(reference, expected=f"one of {listed}", got="another name", do="see /v1/models")
    return matching[-1]


async def _case(form: FormData) -> tuple[Any, list[dict[str, str]]]:
    """The first volume, and what a report says of all of them."""
    images, entries = [], []
    for upload in form.getlist("volume"):
        if not isinstance(upload, UploadFile):
            raise UsageError("volume", expected="a file", got="text", do="send it as a file")
        content, name = await upload.read(), str(upload.filename)
        entries.append({"name": name, "sha256": hashlib.sha256(content).hexdigest()})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                image = nib.load(path)
                values = np.asarray(image.dataobj)
            except (ImageFileError, OSError, EOFError):
                raise InputError(name, expected="a NIfTI volume", got="another file", do="send another") from None
        if not np.isfinite(values).all() and "nan_as" not in form:
            raise InputError(f"/srv/scratch/{name}", expected="finite values", got="NaN", do="give nan_as")
        images.append(nib.Nifti1Image(values, image.affine, image.header))
    return images[0], entries


def _answer(request: Request, form: FormData, outputs: list[str], image: Any, hashes: list[dict[str, str]]) -> Response:
    results: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    failed: list[ModelError] = []
    for asked in [str(model) for model in form.getlist("model")] or [MODELS[1]]:
        try:
            reference = _found(asked)
        except ModelError as error:
            failed.append(error)
            words = {"expected": error.expected, "got": error.got, "do": error.do}
            results.append({"model": asked, "problem": _problem("unknown-model", 404, str(error)) | words})
            continue
        members, report = _members(image, reference, hashes, form)
        wanted = {name: content for name, content in members.items() if name.split(".")[0] in outputs}
        files |= {f"{reference.replace(':', '-')}/{name}": content for name, content in wanted.items()}
        results.append({"model": reference, "report": report})
    if len(failed) == len(results):
        raise failed[0]
    if request.headers.get("Accept") == "application/json":
        return JSONResponse({"results": results})
    if outputs == ["mask"] and len(results) == 1:
        ((content),) = files.values()
        return Response(content, media_type="application/gzip")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as written:
        for name, content in files.items():
            written.writestr(name, content)
        written.writestr("results.json", json.dumps({"results": results}))
    return Response(archive.getvalue(), media_type="application/zip")


def _members(
    image: Any, reference: str, hashes: list[dict[str, str]], form: FormData
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Every file that could be asked for, and the report."""
    values = np.asarray(image.dataobj, dtype=np.float64)
    unit = {"micron": "um", "mm": "mm"}.get(image.header.get_xyzt_units()[0], "unknown")
    grid = Grid(values.shape[:3], image.affine, unit)
    labels = (values > values.mean()).astype(np.uint8)
    statistics = _statistics(labels, values, grid)
    report = _report(reference, grid, statistics_mapping(statistics, grid), form) | {"inputs": hashes}
    logits = np.stack([1.0 - labels, labels], axis=-1).astype(np.float32)
    files = {
        "mask.nii.gz": _nifti(nib.Nifti1Image(labels, image.affine, image.header, dtype=np.uint8)),
        "probabilities.nii.gz": _nifti(nib.Nifti1Image(logits, image.affine)),
        "statistics.json": statistics_bytes("s.json", statistics, grid),
        "statistics.csv": statistics_bytes("s.csv", statistics, grid),
        "preview.png": PNG,
        "report.json": json.dumps(report).encode(),
    }
    return files, report


def _statistics(labels: NDArray[np.uint8], values: NDArray[np.float64], grid: Grid) -> Sequence[LabelStatistics]:
    accumulator = StatisticsAccumulator(grid, TABLE, 1, 2)
    accumulator.add(Box.whole(grid.shape), labels, [values])
    return accumulator.result()


def _report(reference: str, grid: Grid, statistics: Mapping[str, Any], form: FormData) -> dict[str, Any]:
    name, _, version = reference.partition(":")
    return {
        "schema": "voxport/report/1",
        "command": "voxport segment volume_1.nii.gz",
        "outputs": [],
        "model": {
            "name": name,
            "version": version,
            "file": "model.onnx",
            "sha256": "0" * 64,
            "weights_sha256": "0" * 64,
            "certified": True,
            "card": {"tiling": {"overlap": 0.5}},
        },
        "runtime": {"name": "onnx", "library": "1", "device": "cpu", "precision": "fp32"},
        "tuned": None,
        "versions": {},
        "network_seconds": 0.1,
        "grid": grid_mapping(grid),
        "model_grid": grid_mapping(grid),
        "tiles": {
            "count": 1,
            "tile": list(grid.shape),
            "padded": list(grid.shape),
            "axis": "x",
            "blending": str(form.get("blending", "gaussian")),
            "resampled": False,
        },
        "statistics": statistics,
        "seconds": {"queued": 0.0, "score": 0.25},
        "warnings": ["volume_1.nii.gz: only a threshold was applied"],
    }


def _nifti(image: Any) -> bytes:
    return gzip.compress(image.to_bytes(), 1, mtime=0)


def _prediction(values: NDArray[Any], affine: NDArray[np.float64], form: FormData) -> dict[str, Any]:
    reference = _found(str(form.get("model", MODELS[1])))
    first = np.asarray(values[0] if values.ndim == 4 else values, dtype=np.float64)
    labels = (first > first.mean()).astype(np.uint8)
    grid = Grid(shape3(first.shape), affine, str(form.get("unit", "unknown")))
    report = _report(reference, grid, statistics_mapping(_statistics(labels, first, grid), grid), form)
    data = {
        "segmentation": labels.tolist(),
        "shape": list(labels.shape),
        "labels": [{"value": 1, "name": "vessel", "colour": "#e4572e"}],
        "statistics": report["statistics"],
        "model": report["model"],
        "runtime": report["runtime"],
        "timings": report["seconds"],
        "tiles": 1,
        "warnings": [],
    }
    if form.get("probabilities") == "true":
        data["probabilities"] = np.stack([1.0 - labels, labels]).tolist()
    return data


@contextmanager
def serving(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """The address of a server for an app, on a free port of this machine, for as long as the block lasts."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        # connections are taken from now on, and answered once the thread below is ready
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def rude(answer: bytes, read: bytes = b"\r\n\r\n") -> Iterator[str]:
    """A server that reads up to some bytes, answers, and hangs up; without an answer it stays and is silent."""
    done = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            seen = b""
            while read not in seen and (more := connection.recv(2**16)):
                seen += more
            connection.sendall(answer)
            if not answer:
                done.wait(10)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            done.set()
            thread.join(10)
