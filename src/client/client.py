"""The client: each method is one request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from numpy.typing import ArrayLike

from ..domain.errors import UsageError
from ..domain.run import ArrayOptions, RemoteOptions
from ..domain.volume_names import USUAL_FORMAT, ZIP, MaskFormat
from .answers import ModelResult, PredictResult, predict_result
from .downloads import check_destinations, check_outputs, check_place, commit_all, spool
from .errors import one_line
from .forms import (
    Fields,
    OnProgress,
    StrPath,
    Uploads,
    Volumes,
    array_form,
    check_model,
    checked_key,
    checked_url,
    fields_of,
    files_of,
    real_array,
    silent,
)
from .jobs import Jobs
from .results import ZIP_TYPE, Archive, asked_format, asked_outputs, members_of, places_of, received

if TYPE_CHECKING:
    import httpx

_LARGEST_BYTES = 2**30
Members = Mapping[str, tuple[str, ...]]


class Client:
    """A voxport server, with the paths and errors of the library.

    Requests are not retried, except as `Jobs.submit` and `Jobs.wait` describe. Thread-safe. A key sent over plain http
    can be read on the way: use https beyond trusted networks.

    Example::

        with Client("https://segment.lab.example", api_key="...") as client:
            client.segment("scan.nii.gz", "mask.nii.gz", model="two-photon-vessels")

    Args:
        url: address of the server, including a proxy's path.
        api_key: key; by default the variable ``VOXPORT_API_KEY``.
        timeout_seconds: maximum silence. The server is silent while a case waits and runs.
        transport: httpx transport instead of the network, such as one that calls an app in this process.

    Attributes:
        jobs: the server's queue, see `Jobs`.

    Raises:
        UsageError: an invalid URL, key or timeout, or httpx is not installed.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:3000",
        *,
        api_key: str | None = None,
        timeout_seconds: float = 600.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not (isfinite(timeout_seconds) and timeout_seconds > 0):
            got = f"{timeout_seconds:g}"
            raise UsageError("timeout_seconds", expected="a positive number", got=got, do="correct it")
        key = os.environ.get("VOXPORT_API_KEY") if api_key is None else api_key
        try:
            from .connection import Connection
        except ModuleNotFoundError as error:
            do = "install voxport with the extra serving: pip install 'voxport[serving]'"
            raise UsageError("client", expected="the package httpx", got=f"no {error.name}", do=do) from None
        self._connection = Connection(checked_url(url), checked_key(key), timeout_seconds, transport)
        self.jobs = Jobs(self._connection)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's address."""
        return self._connection.url

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def cut(self) -> None:
        """Shut down all connections, present and future; waiting threads raise."""
        self._connection.cut()

    def health(self) -> Mapping[str, Any]:
        """Return ``status`` (ok, degraded or unavailable), models, and requests in flight.

        Raises:
            RemoteError: the server is unreachable or is not voxport.
        """
        return self._connection.json("GET", "/health", also=(503,))

    def models(self) -> Mapping[str, Any]:
        """Return ``default``, ``models`` (each with name, version, status, certificate) and ``broken``.

        Raises:
            UsageError: the server requires an API key.
            RemoteError: the server is unreachable or is not voxport.
        """
        return self._connection.json("GET", "/v1/models")

    def model(self, name: str) -> Mapping[str, Any]:
        """Return one model, ``NAME`` or ``NAME:VERSION``, with card and hashes.

        Raises:
            ModelError: no such model.
            UsageError, RemoteError: as `models`.
        """
        check_model(name)
        return self._connection.json("GET", f"/v1/models/{quote(name, safe=':+')}")

    def plan(
        self,
        volumes: Volumes,
        *,
        model: str | None = None,
        on_progress: OnProgress = silent,
        **options: Unpack[RemoteOptions],
    ) -> Mapping[str, Any]:
        """Estimate tiles, seconds and peak memory of a run on the server, with warnings; see `segment`."""
        paths, stated = files_of(volumes, options)
        fields = fields_of([model], stated)
        with Uploads(paths, on_progress) as uploads:
            answer = self._connection.json("POST", "/v1/plan", form=uploads.form(fields))
            return answer | {"warnings": [uploads.localised(one_line(w)) for w in answer.get("warnings") or ()]}

    def segment(
        self,
        volumes: Volumes,
        destination: StrPath,
        *,
        model: str | None = None,
        outputs: Mapping[str, StrPath] | None = None,
        on_progress: OnProgress = silent,
        **options: Unpack[RemoteOptions],
    ) -> Mapping[str, Any]:
        """Segment a case and write its mask on the grid of its first volume.

        Files are streamed. Result files appear together when all are complete, the mask last; none after a failure.

        Args:
            volumes: files whose channels make up the case, of any format that the server reads; a DICOM series or an
                OME-Zarr as a folder.
            destination: the mask; its ending is its format: ``.nii.gz``, ``.ome.tif``, ``.ome.zarr`` and so on.
            model: ``NAME`` or ``NAME:VERSION``; by default the server's.
            overlap: of tiles, 0 to 0.75; this and the next three default to the model card's.
            patch: edges in voxels, ``(x, y, z)``.
            blending: gaussian, constant or halo.
            threshold: probability threshold, for models with independent labels.
            nan_as: replaces NaN and Inf, which are otherwise refused.
            spacing: voxel sizes ``(x, y, z)``; this and the next six say how the volumes are stored, where the files do
                not, see `Reading`.
            unit: of the voxel sizes.
            axes: letters of the stored axes, e.g. ``ZYX``.
            channel: names or indices of channels.
            timepoint: index of the point in time.
            level: of a pyramid.
            series: which image of several.
            outputs: further files: ``probabilities``, ``uncertainty`` (.nii, .nii.gz), ``statistics`` (.json, .csv),
                ``preview`` (.png), ``report`` (.json).
            on_progress: called as ``on_progress(stage, done, total)``, in bytes; stages are upload, score and download.

        Returns:
            The run's report, with the local names of files.

        Raises:
            UsageError, InputError, ModelError, LimitError, OutputError: as a local run; UsageError also if the
                server requires an API key.
            BusyError: a full queue or a rate limit; contains the time to wait.
            RemoteError: the server is unreachable, fails, or is not voxport.
        """
        (paths, stated), mask = files_of(volumes, options), Path(destination)
        places = {"mask": mask} | {output: Path(path) for output, path in (outputs or {}).items()}
        check_destinations(places, paths)
        asked = asked_format(mask)
        members = places_of(places, asked)
        fields = fields_of([model], stated, asked_outputs(places), asked)
        with (
            self._results(paths, fields, members_of(asked), mask.parent, on_progress) as (archive, uploads),
            received(archive.members(archive.only()), uploads.sent(), members) as (report, downloads),
        ):
            commit_all(downloads, last=mask)
            return report

    def segment_many(
        self,
        volumes: Volumes,
        folder: StrPath,
        *,
        models: Sequence[str],
        outputs: Iterable[str] = (),
        format: MaskFormat = USUAL_FORMAT,
        on_progress: OnProgress = silent,
        **options: Unpack[RemoteOptions],
    ) -> tuple[ModelResult, ...]:
        """Segment a case with several models in one upload. A failing model does not stop the others.

        Args:
            volumes: as other arguments not listed, see `segment`.
            folder: existing folder; each model's files go to ``NAME-VERSION``: ``mask.nii.gz``,
                ``probabilities.nii.gz``, ``uncertainty.nii.gz``, ``statistics.json`` and ``.csv``, ``preview.png``,
                ``report.json``.
            models: ``NAME`` or ``NAME:VERSION`` of each.
            outputs: besides the mask: probabilities, uncertainty, statistics, preview, report.
            format: of the masks: ``nii.gz``, ``ome.tif``, ``ome.zarr`` and so on.

        Raises:
            VoxportError: as `segment`; the first model's error if all fail.
        """
        wanted, into = list(dict.fromkeys(["mask", *outputs])), Path(folder)
        check_outputs(wanted)
        check_place(into / "results")
        asked = None if format == USUAL_FORMAT else format
        named = members_of(format)
        paths, stated = files_of(volumes, options)
        fields = fields_of(models, stated, asked_outputs(wanted), asked)
        with (
            self._results(paths, fields, named, into, on_progress) as (archive, uploads),
            ExitStack() as stack,
        ):
            found, downloads = [], []
            for result in archive.results:
                if result.error is not None:
                    found.append(ModelResult(result.model, None, {}, result.error))
                    continue
                members = archive.members(result)
                names = [name for output in wanted for name in named[output] if archive.has(result, name)]
                files = {name: into / result.folder / name.removesuffix(ZIP) for name in [*named["mask"], *names]}
                report, written = stack.enter_context(received(members, uploads.sent(), files, into))
                found.append(ModelResult(result.model, report, files))
                downloads += written
            for download in downloads:
                download.commit()
            return tuple(found)

    def predict(
        self,
        array: ArrayLike,
        *,
        spacing: Sequence[float] | None = None,
        unit: str | None = None,
        model: str | None = None,
        probabilities: bool = False,
        **options: Unpack[ArrayOptions],
    ) -> PredictResult:
        """Segment a small array.

        Args:
            array: ``(X, Y, Z)`` or ``(C, X, Y, Z)`` of real numbers, in RAS+ orientation.
            spacing: ``(x, y, z)``, by default 1.
            unit: mm, um or unknown.
            model: ``NAME`` or ``NAME:VERSION``; by default the server's.
            probabilities: whether to return them.
            overlap: overlap, patch and threshold as for `segment`.

        Raises:
            InputError: another number of axes, or values that are not real numbers.
            LimitError: too many voxels; use `segment`.
            VoxportError: as `segment`.
        """
        values = real_array(array)
        form = array_form(values, fields_of([model], options), spacing, unit, probabilities)
        data = self._connection.json("POST", "/predict", form=form, largest_bytes=_LARGEST_BYTES)
        return predict_result(data, values.shape[-3:], self.url)

    @contextmanager
    def _results(
        self, paths: Sequence[Path], fields: Fields, named: Members, folder: Path, on_progress: OnProgress
    ) -> Iterator[tuple[Archive, Uploads]]:
        """Send volumes for segmentation, and keep the archive of results in a temporary folder."""
        with Uploads(paths, on_progress) as uploads, spool(folder) as file:
            with self._connection.answer("POST", "/segment", ZIP_TYPE, form=uploads.form(fields)) as answer:
                self._connection.save(answer, file, lambda done, total: on_progress("download", done, total))
            asked = [member for output in fields["outputs"] for member in named[output]]
            yield Archive(file, self.url, asked, uploads.localised), uploads
