"""HTTP requests over httpx, with one-line errors."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, BinaryIO
from weakref import WeakSet

import httpx

from ..contract.problem import MEDIA_TYPE as PROBLEM
from ..domain.errors import LimitError, UsageError, VoxportError
from .answers import JSON, json_object
from .downloads import writing
from .errors import LostAnswerError, RemoteError, UnreachableError, one_line, problem_error
from .forms import Form, is_loopback

_CONNECT_SECONDS = 10.0
_LARGEST_JSON_BYTES = 2**26
_LARGEST_REFUSAL_BYTES = 2**16
_CHUNK_BYTES = 2**18
# A proxy answers with these where its server is away.
_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


class Connection:
    """A connection to a server. Redirects are not followed, so a key is sent to the given address only.

    The system's proxies (``HTTP_PROXY`` etc.) are not used for this machine. Certificates are checked against the
    system's store, or ``SSL_CERT_FILE``. ``url`` and ``key`` are checked before.
    """

    def __init__(
        self, url: str, key: str | None, timeout_seconds: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url
        self.timeout_seconds = timeout_seconds
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock, self._is_cut = threading.Lock(), False
        # responses are compressed files
        headers = {"User-Agent": "voxport", "Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=_timeout(timeout_seconds),
                follow_redirects=False,
                trust_env=not is_loopback(url),
                verify=_certificates(url),
                transport=transport,
            )
        except (ImportError, ValueError) as error:
            got = one_line(error)
            raise UsageError("proxy", expected="settings that can be used", got=got, do="correct HTTP_PROXY") from None

    def close(self) -> None:
        """Close what is open."""
        self._client.close()

    def cut(self) -> None:
        """Shut down all connections, present and future. May be called from another thread."""
        with self._lock:
            self._is_cut = True
            for open_socket in self._sockets:
                _shut(open_socket)

    def _remember(self, event: str, info: Mapping[str, Any]) -> None:
        """Record a connection, reported by httpcore's trace extension."""
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        found = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets.add(found)
            if self._is_cut:
                _shut(found)

    def json(
        self,
        method: str,
        path: str,
        *,
        form: Form | None = None,
        largest_bytes: int = _LARGEST_JSON_BYTES,
        also: Sequence[int] = (),
        headers: Mapping[str, str] | None = None,
        silence_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that answers a request; see `answer`."""
        asked: dict[str, Any] = {"form": form, "also": also, "headers": headers, "silence_seconds": silence_seconds}
        with self.answer(method, path, JSON, **asked) as response:
            body = _read(response, largest_bytes)
        if body is None:
            got = f"more than {largest_bytes} bytes"
            raise RemoteError.wrong_answer(self.url, expected="an answer of a bearable size", got=got)
        return json_object(body, self.url)

    @contextmanager
    def answer(
        self,
        method: str,
        path: str,
        media_type: str,
        *,
        form: Form | None = None,
        also: Sequence[int] = (),
        headers: Mapping[str, str] | None = None,
        silence_seconds: float | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request and stream a response of a media type; reading it raises the same errors.

        Args:
            method: HTTP method.
            path: path below the server's address.
            media_type: expected media type.
            form: request body.
            also: accepted statuses beside 200; 204 has no body.
            headers: further headers.
            silence_seconds: maximum silence, if other than the client's.

        Raises:
            VoxportError: the server's refusal.
            RemoteError: an unexpected response.
            UnreachableError: no response, or an incomplete one.
        """
        seconds = self.timeout_seconds if silence_seconds is None else silence_seconds
        request = self._client.build_request(
            method,
            self.url + path,
            headers={"Accept": media_type, **(headers or {})},
            extensions={"trace": self._remember},
            data=None if form is None else form.fields,
            files=None if form is None else form.parts,
            timeout=_timeout(seconds),
        )
        with self._clear_errors(form, seconds):
            response = self._client.send(request, stream=True)
            try:
                self._check(response, media_type, also, str if form is None else form.localised)
                yield response
            finally:
                response.close()

    def save(self, response: httpx.Response, file: BinaryIO, count_bytes: Callable[[int, int], None]) -> None:
        """Write a response to a file; ``count_bytes`` receives bytes done and total (0 if unknown)."""
        length = response.headers.get("Content-Length", "")
        total, done = int(length) if length.isdecimal() else 0, 0
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            done += len(chunk)
            with writing("the answer"):
                file.write(chunk)
                file.flush()
            count_bytes(done, total)

    def _check(
        self, response: httpx.Response, media_type: str, also: Sequence[int], localised: Callable[[str], str]
    ) -> None:
        got = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        status = response.status_code
        if status in (200, *also) and (got == media_type or status == 204):
            return
        if status == 200:
            raise RemoteError.wrong_answer(self.url, expected=media_type, got=one_line(got) or "no media type")
        raise self._refused(response, got == PROBLEM, localised)

    def _refused(self, response: httpx.Response, is_problem: bool, localised: Callable[[str], str]) -> VoxportError:
        """Return the error for an unexpected status: voxport's own, a proxy's, or that of some other server."""
        url, status = self.url, response.status_code
        if is_problem:
            with suppress(RemoteError):
                problem = json_object(_read(response, _LARGEST_REFUSAL_BYTES) or b"", url)
                return problem_error(problem, url, localised, response.headers.get("Retry-After"))
        if response.has_redirect_location:
            got = f"a redirect to {one_line(response.headers['Location'])}"
            return RemoteError(url, expected="an answer", got=got, do="give that address, if you trust it")
        got = f"HTTP {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        if status in _AWAY:
            do = "check that the server behind that address runs"
            return UnreachableError(url, expected="an answer", got=got, do=do)
        got += " without voxport's problem details, as proxies answer"
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            expected = "a request within the limit of the proxy on the way"
            do = "raise the proxy's limit on the size of requests, or send less"
            return LimitError(url, expected=expected, got=got, do=do)
        return RemoteError.wrong_answer(url, expected="an answer of voxport's", got=got)

    @contextmanager
    def _clear_errors(self, form: Form | None, seconds: float) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise self._clear(error, form is None or form.is_sent(), seconds) from None

    def _clear(self, error: Exception, sent: bool, seconds: float) -> RemoteError:
        """Turn an httpx error into a one-line error."""
        causes = list(_causes(error))
        secure = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
        # An early end is a broken connection, with or without TLS.
        if secure is not None and not isinstance(secure, ssl.SSLEOFError):
            got = one_line(getattr(secure, "verify_message", "") or getattr(secure, "reason", "") or secure)
            do = "check http or https in its address; SSL_CERT_FILE names certificates to trust"
            return RemoteError(self.url, expected="a secure connection", got=got, do=do)
        if isinstance(error, httpx.ConnectTimeout):
            got, do = "no answer", "check the address, and that the server runs"
            return UnreachableError(self.url, expected="a connection", got=got, do=do)
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            said = next((cause.strerror for cause in reversed(causes) if getattr(cause, "strerror", None)), str(error))
            do = "check the address, and that the server runs"
            return UnreachableError(self.url, expected="a connection", got=one_line(said).lower(), do=do)
        if isinstance(error, httpx.TimeoutException):
            got, kind = f"silence for {seconds:g} s", LostAnswerError if sent else UnreachableError
            return kind(self.url, expected="an answer", got=got, do="look at the server, or wait longer")
        if not sent:
            do = "see its log; the volume may be more than it takes"
            return UnreachableError(self.url, expected="the request to be taken", got="a hang-up while sending", do=do)
        got = "a connection that broke off"
        return LostAnswerError(self.url, expected="a whole answer", got=got, do="see the server's log, and ask again")


def _timeout(seconds: float) -> httpx.Timeout:
    """Return the maximum silence, and a shorter limit for connecting."""
    return httpx.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds))


def _read(response: httpx.Response, largest_bytes: int) -> bytes | None:
    """Return the body, or None if it is too large."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > largest_bytes:
            return None
    return bytes(body)


def _shut(open_socket: socket.socket) -> None:
    with suppress(OSError):  # already closed, or wrapped by TLS
        open_socket.shutdown(socket.SHUT_RDWR)


def _certificates(url: str) -> ssl.SSLContext:
    """Return the system's certificates; loads none for plain http."""
    return ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _causes(error: BaseException) -> Iterator[Any]:
    """Yield an exception and its causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
