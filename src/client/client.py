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
from ..domain.run import RESULT_FILES, RemoteOptions
from .address import checked_key, checked_url
from .answers import ModelResult, PredictResult, predict_result
from .archive import MEDIA_TYPE, MEMBERS, Archive, asked_outputs, member_of
from .arrays import array_fields, array_form, real_array
from .downloads import check_destinations, check_outputs, check_place, commit_all, spool
from .errors import one_line
from .fields import Fields, check_model, fields_of
from .jobs import Jobs
from .results import received
from .uploads import Hear, StrPath, Uploads, Volumes, paths_of, silent

if TYPE_CHECKING:
    import httpx

    from .connection import Connection

_LARGEST_BYTES = 2**30


class Client:
    """A voxport server, asked in the way that the library is: paths in, paths out, the library's errors.

    Nothing is retried, but for what ``jobs.submit`` and ``jobs.wait`` say: a BusyError says after how many seconds to
    ask again. One client may be used by several threads. Over plain http a key can be read on the way: use https beyond
    this machine and networks that you trust.

    Example::

        with Client("https://segment.lab.example", api_key="...") as client:
            client.segment("scan.nii.gz", "mask.nii.gz", model="two-photon-vessels")

    Args:
        url: of the server, with the path that a proxy put it under, if any.
        api_key: where the server asks for one; the variable ``VOXPORT_API_KEY`` where it is not given.
        timeout_seconds: the longest silence to wait through. While a case waits and is scored the server is silent.
        transport: httpx transport to use in place of the network, such as one that calls an app in this process.

    Attributes:
        jobs: the server's queue, for cases that take longer than anybody wants to hold a connection for.

    Raises:
        UsageError: a URL, key or timeout that makes no sense, or httpx is not installed.
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
        self._connection = _connect(checked_url(url), checked_key(key), timeout_seconds, transport)
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
        """End what other threads wait for: connections are shut, now and as they are opened; the waits raise."""
        self._connection.cut()

    def health(self) -> Mapping[str, Any]:
        """What the server says of itself: ``status`` (ok, degraded or unavailable), its models, what is in flight.

        Raises:
            RemoteError: it cannot be reached, or answers as voxport does not.
        """
        return self._connection.json("GET", "/health", also=(503,))

    def models(self) -> Mapping[str, Any]:
        """The models: ``default``, ``models`` (each with name, version, status, certificate) and ``broken``.

        Raises:
            UsageError: the server wants an API key.
            RemoteError: it cannot be reached, or answers as voxport does not.
        """
        return self._connection.json("GET", "/v1/models")

    def model(self, name: str) -> Mapping[str, Any]:
        """One model, by ``NAME`` or ``NAME:VERSION``, with its card and hashes.

        Raises:
            ModelError: the server has no such model.
            UsageError, RemoteError: as ``models``.
        """
        check_model(name)
        path = f"/v1/models/{quote(name, safe=':+')}"
        return self._connection.json("GET", path)

    def plan(
        self,
        volumes: Volumes,
        *,
        model: str | None = None,
        hear: Hear = silent,
        **options: Unpack[RemoteOptions],
    ) -> Mapping[str, Any]:
        """Foretell a run on the server: tiles, seconds, peak memory, warnings. The volumes are sent, and not kept.

        Args and errors are those of ``segment``.
        """
        fields = fields_of([model], options)
        with Uploads(paths_of(volumes), hear) as uploads:
            told = self._connection.json("POST", "/v1/plan", form=uploads.form(fields))
            return told | {"warnings": [uploads.localised(one_line(w)) for w in told.get("warnings") or ()]}

    def segment(
        self,
        volumes: Volumes,
        destination: StrPath,
        *,
        model: str | None = None,
        outputs: Mapping[str, StrPath] | None = None,
        hear: Hear = silent,
        **options: Unpack[RemoteOptions],
    ) -> Mapping[str, Any]:
        """Segment a case and write its mask, on the grid of its first volume.

        The volumes are streamed from disk and the results to it. Every file appears whole under its name once all of
        them are there, the mask last; of a failure nothing appears.

        Args:
            volumes: files whose channels make up the case, ``.nii`` or ``.nii.gz``.
            destination: the mask, ``.nii`` or ``.nii.gz``.
            model: ``NAME`` or ``NAME:VERSION``; the server's default where it is not given.
            overlap: of tiles, 0 to 0.75; the model card's where it is not given, as with the next three.
            patch: edges of a tile in voxels, ``(x, y, z)``.
            blending: gaussian, constant or halo.
            threshold: probability from which a voxel has a label, for models with independent labels.
            nan_as: taken for NaN and Inf, which are refused otherwise.
            outputs: further files: ``probabilities`` (.nii, .nii.gz), ``statistics`` (.json, .csv), ``preview``
                (.png), ``report`` (.json).
            hear: called as ``hear(stage, done, total)``, in bytes, while the request goes on; stages are upload,
                score and download.

        Returns:
            The run's report, with the files' names here.

        Raises:
            UsageError, InputError, ModelError, LimitError, OutputError: as a run on this machine; UsageError also
                where the server wants an API key.
            BusyError: the server's queue is full, or it was asked too often; it says when to ask again.
            RemoteError: the server cannot be reached, fails, or answers as voxport does not.
        """
        paths, mask = paths_of(volumes), Path(destination)
        places = {"mask": mask} | {output: Path(path) for output, path in (outputs or {}).items()}
        check_destinations(places, paths)
        members = {member_of(output, path): path for output, path in places.items()}
        fields = fields_of([model], options, asked_outputs(places))
        with (
            self._results(paths, fields, mask.parent, hear) as (archive, uploads),
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
        hear: Hear = silent,
        **options: Unpack[RemoteOptions],
    ) -> tuple[ModelResult, ...]:
        """Segment a case with several models; the volumes are sent once. A model that fails does not stop the others.

        Args:
            volumes: as for ``segment``, as is everything that is not named here.
            folder: each model's files go into ``NAME-VERSION`` in it: ``mask.nii.gz``, ``probabilities.nii.gz``,
                ``statistics.json`` and ``.csv``, ``preview.png``, ``report.json``. It must exist.
            models: ``NAME`` or ``NAME:VERSION`` of each.
            outputs: besides the mask: probabilities, statistics, preview, report.

        Raises:
            VoxportError: as ``segment``; the first model's error where all of them fail.
        """
        wanted, into = list(dict.fromkeys(["mask", *outputs])), Path(folder)
        check_outputs(wanted)
        check_place(into / "results")
        fields = fields_of(models, options, asked_outputs(wanted))
        with self._results(paths_of(volumes), fields, into, hear) as (archive, uploads), ExitStack() as stack:
            found, downloads = [], []
            for result in archive.results:
                if result.error is not None:
                    found.append(ModelResult(result.model, None, {}, result.error))
                    continue
                members = archive.members(result)
                names = [name for output in wanted for name in MEMBERS[output] if members.has(name)]
                files = {name: into / result.folder / name for name in [RESULT_FILES["mask"], *names]}
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
        **options: Unpack[RemoteOptions],
    ) -> PredictResult:
        """Segment an array that is small enough to be answered as numbers.

        Args:
            array: ``(X, Y, Z)`` or ``(C, X, Y, Z)``, of real numbers; axes run to the right, anterior and superior.
            spacing: of the voxels, ``(x, y, z)``; 1 where it is not given.
            unit: of the spacing: mm, um or unknown.
            model: ``NAME`` or ``NAME:VERSION``; the server's default where it is not given.
            probabilities: answer them too.
            overlap: of tiles; patch and threshold: as for ``segment``.

        Raises:
            InputError: another number of axes, or no real numbers.
            LimitError: more voxels than the server answers in this way; send a file with ``segment``.
            VoxportError: as ``segment`` otherwise.
        """
        values = real_array(array)
        fields = fields_of([model], options) | array_fields(spacing, unit, probabilities)
        data = self._connection.json("POST", "/predict", form=array_form(values, fields), largest_bytes=_LARGEST_BYTES)
        return predict_result(data, values.shape[-3:], self.url)

    @contextmanager
    def _results(
        self, paths: Sequence[Path], fields: Fields, folder: Path, hear: Hear
    ) -> Iterator[tuple[Archive, Uploads]]:
        """Send volumes to be segmented, and keep the archive of results in a folder for as long as it is needed."""
        with Uploads(paths, hear) as uploads, spool(folder) as file:
            with self._connection.answer("POST", "/segment", MEDIA_TYPE, form=uploads.form(fields)) as answer:
                self._connection.save(answer, file, lambda done, total: hear("download", done, total))
            yield Archive(file, self.url, fields["outputs"], uploads.localised), uploads


def _connect(url: str, key: str | None, seconds: float, transport: httpx.BaseTransport | None) -> Connection:
    try:
        from .connection import Connection
    except ModuleNotFoundError as error:
        do = "install voxport with the extra serving: pip install 'voxport[serving]'"
        raise UsageError("client", expected="the package httpx", got=f"no {error.name}", do=do) from None
    return Connection(url, key, seconds, transport)
