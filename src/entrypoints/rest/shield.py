"""The shield: ASGI middleware that checks every request before its body is read.

The checks, in order: the connection's address, host and origin, key, rate, form of the body. Admitted requests are
counted while they stream, answered under a request id, and logged as one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ...settings import ServingSettings
from ..json_log import JsonLines
from ..public_address import PublicAddress, prefix_of
from .admission import Rate, bad_bind, bad_body, bad_origin, peer_of
from .api_page import FILES, PAGE
from .connections import Draining
from .exchange import Exchange, body_too_large
from .keys import KeyHash, holder
from .problems import INTERNAL, Problem, in_protocol, problem_of, problem_response

ANONYMOUS = "anonymous"
# Headers that pages of other sites may send, and read.
_CORS_SENT = ("Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "If-None-Match")
_CORS_READ = ("Voxport-Report", "Voxport-Request", "Location", "Retry-After", "ETag", "Content-Disposition")
UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# an orchestrator asks them without a key
PROBES = frozenset({"/livez", "/readyz"})
# where clients of MONAI Label ask whether a key is needed, and turn it into a token
_LOGINS = frozenset({"/auth/", "/auth/token"})

_errors = logging.getLogger("voxport.rest")


class _Cors(CORSMiddleware):
    """Answers a preflight that is not allowed with a problem."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        expected, got = "an origin, method and headers that the service allows", bytes(answer.body).decode().lower()
        do = "have the site added to VOXPORT_SERVING__CORS_ORIGINS, or see docs/settings.md"
        problem = Problem.about("forbidden", "preflight", expected=expected, got=got, do=do)
        request_id = str(uuid4())
        refusal = problem_response(problem, request_id)
        refusal.headers.update({"Vary": "Origin", "Voxport-Request": request_id, "Cache-Control": "no-store"})
        return refusal


class Shield:
    """ASGI middleware before the service.

    ``scope["state"]`` gets ``request_id`` and ``principal``; every answer carries ``Voxport-Request``. An exception of
    `api` is logged under the request's id, and answered here unless an answer has started.

    Args:
        app: gets the lifespan: BentoML's application.
        api: answers all requests.
        settings: limits, origins and the public address.
        log: gets one record a request, see `access_logger`.
        keys: those that open the service; without keys it is open to this machine only.
        refused: called with the kind of each problem that the shield sends.
        draining: counts open requests, and ends them when the process stops.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api: ASGIApp,
        settings: ServingSettings,
        log: logging.Logger,
        keys: Sequence[KeyHash] = (),
        refused: Callable[[str], None] = lambda _: None,
        draining: Draining | None = None,
    ) -> None:
        self._app = app
        self._api = api
        self._settings = settings
        self._keys = keys
        self._public = PublicAddress(settings.public_url, settings.trust_forwarded_prefix)
        self._log = log
        self._refused = refused
        self._draining = draining or Draining(0.0)
        self._rate = Rate(settings.rate_per_minute)
        self._serve_http: ASGIApp = self._http
        if settings.cors_origins:
            self._serve_http = _Cors(
                self._http,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "HEAD", "POST", "DELETE", *(["PUT"] if settings.monailabel else [])),
                allow_headers=_CORS_SENT,
                expose_headers=_CORS_READ,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await self._serve_http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # no route takes websockets, and the checks would not see them
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, outer: Scope, receive: Receive, send: Send) -> None:
        outer = self._public.applied_to(dict(outer))
        headers = Headers(scope=outer)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        exchange = Exchange(
            receive, send, self._settings.max_body_bytes, self._settings.silence_seconds, has_body=has_body
        )
        state = {**outer.get("state", {}), "request_id": exchange.request_id, "principal": ANONYMOUS}
        scope = {**outer, "state": state}
        try:
            with self._draining.request(lambda problem: self._refuse(scope, exchange, problem)):
                await self._serve(scope, exchange)
            await exchange.finish()
        finally:
            self._log.info("request", extra={"access": _access(scope, exchange)})

    async def _serve(self, scope: Scope, exchange: Exchange) -> None:
        if (problem := self._refusal(scope)) is not None:
            await self._refuse(scope, exchange, problem)
            return
        try:
            await self._api(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the last one who can answer
            # a failure of the body may reach this place as another exception
            if exchange.failure is None:
                _errors.error("request %s failed", exchange.request_id, exc_info=error)
                await self._refuse(scope, exchange, INTERNAL)
        if exchange.failure is not None:
            await self._refuse(scope, exchange, problem_of(exchange.failure))

    async def _refuse(self, scope: Scope, exchange: Exchange, problem: Problem) -> None:
        self._refused(problem.kind)
        await exchange.refuse(in_protocol(problem, scope["path"]))

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        settings = self._settings
        if not self._keys and not settings.insecure:
            problem = bad_bind(scope) or bad_origin(headers, self._public.host, settings.cors_origins)
            if problem is not None:
                return problem
        path = scope["path"].removeprefix(prefix_of(scope))
        if path not in PROBES:
            problem = None if self._is_open(path) else self._unauthorised(scope, headers)
            problem = problem or self._rate.exceeded(_caller(scope))
            if problem is not None:
                return problem
        return bad_body(scope, headers) or self._too_large(headers)

    def _is_open(self, path: str) -> bool:
        """Whether a path works without a key: the page of the API, which asks for one, and the ways to log in."""
        return path == PAGE or path.startswith(f"{FILES}/") or (self._settings.monailabel and path in _LOGINS)

    def _unauthorised(self, scope: Scope, headers: Headers) -> Problem | None:
        if not self._keys:
            return None
        key = holder(self._keys, headers)
        if key is None:
            # the same words for every fault
            expected, got = "Authorization: Bearer KEY or X-API-Key: KEY", "no key that this service knows"
            do, challenge = "ask whoever runs it for one", {"WWW-Authenticate": 'Bearer realm="voxport"'}
            return Problem.about("unauthorised", "key", expected=expected, got=got, do=do, headers=challenge)
        scope["state"]["principal"] = key.principal
        return None

    def _too_large(self, headers: Headers) -> Problem | None:
        limit = self._settings.max_body_bytes
        length = int(headers.get("content-length", "0"))
        return problem_of(body_too_large(limit)) if length > limit else None


def _caller(scope: Scope) -> tuple[str, str]:
    principal = scope["state"]["principal"]
    return ("address", peer_of(scope)) if principal == ANONYMOUS else ("key", principal)


def _access(scope: Scope, exchange: Exchange) -> dict[str, object]:
    """One line of the log, with no text that a caller chose."""
    return {
        "request": exchange.request_id,
        "method": scope["method"] if scope["method"] in _METHODS else "other",
        "route": getattr(scope.get("route"), "path", UNMATCHED),  # the template, not the path
        "status": exchange.status,  # None: the caller left before the answer
        "seconds": round(exchange.seconds, 6),  # from the request's headers to the answer's last byte
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "principal": scope["state"]["principal"],
    }


def access_logger() -> logging.Logger:
    """The logger of requests, writing JSON lines to standard error and nowhere else."""
    log = logging.getLogger("voxport.access")
    if not any(isinstance(handler.formatter, JsonLines) for handler in log.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log
