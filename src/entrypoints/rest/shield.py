"""The shield: ASGI middleware that decides who may ask for what, before any body is read.

Every request passes the same checks in one order: where the connection came in, which site it was meant for, the key,
the rate, the form of the body. What the checks let through is counted while it streams, answered under a request id,
and logged as one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from ..public_address import PublicAddress, prefix_of
from .access_log import Access, method_name, write_access
from .admission import bad_bind, bad_body, bad_origin
from .connections import Draining
from .exchange import BodyTooLargeError, Exchange
from .keys import KeyHash, holder
from .problems import INTERNAL, Problem, in_protocol, problem_of
from .rate import Rate, peer_of

ANONYMOUS = "anonymous"
# Headers that pages of other sites may send, and read.
_CORS_SENT = ("Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "If-None-Match")
_CORS_READ = ("Voxport-Report", "Voxport-Request", "Location", "Retry-After", "ETag", "Content-Disposition")
UNMATCHED = "unmatched"
# what an orchestrator asks all the time, and cannot hold a key for
PROBES = frozenset({"/livez", "/readyz"})

_errors = logging.getLogger("voxport.rest")


@dataclass(frozen=True)
class ShieldSettings:
    """What the shield lets through.

    Args:
        keys: those that open the service; none opens it to this machine only.
        insecure: open to everyone even without keys.
        max_body_bytes: of a request.
        rate_per_minute: requests a minute for each key, or each address where there is none; 0 is no limit.
        silence_seconds: time without a byte of a request's body until it is refused.
        public: the address that callers use.
        cors_origins: sites whose pages may call the service from a browser.
    """

    keys: tuple[KeyHash, ...] = ()
    insecure: bool = False
    max_body_bytes: int = 2 * 2**30
    rate_per_minute: int = 0
    silence_seconds: float = 30.0
    public: PublicAddress = field(default_factory=PublicAddress)
    cors_origins: tuple[str, ...] = ()


class Shield:
    """ASGI middleware in front of the service.

    ``scope["state"]`` gets ``request_id`` and ``principal``; every answer carries ``Voxport-Request``.
    A request that `api` fails on is answered here, if it was not yet, and the failure is logged under its id.

    Args:
        app: what runs the server: it gets the lifespan.
        api: what answers all requests.
        settings: what is let through.
        log: gets one record a request, see `access_log`.
        refused: called with the kind of each problem that the shield answers with.
        draining: counts open requests, and cuts them short when the process stops.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api: ASGIApp,
        settings: ShieldSettings,
        log: logging.Logger,
        refused: Callable[[str], None] = lambda _: None,
        draining: Draining | None = None,
    ) -> None:
        self._app = app
        self._api = api
        self._settings = settings
        self._log = log
        self._refused = refused
        self._draining = draining or Draining(0.0)
        self._rate = Rate(settings.rate_per_minute)
        self._serve_http: ASGIApp = self._http
        if settings.cors_origins:
            self._serve_http = CORSMiddleware(
                self._http,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "HEAD", "POST", "DELETE"),
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
            # nothing here speaks it, and no check above would see it
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, outer: Scope, receive: Receive, send: Send) -> None:
        outer = self._settings.public.applied_to(dict(outer))
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
            write_access(self._log, _access(scope, exchange))

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
        if not settings.keys and not settings.insecure:
            problem = bad_bind(scope) or bad_origin(headers, settings.public.host, settings.cors_origins)
            if problem is not None:
                return problem
        if scope["path"].removeprefix(prefix_of(scope)) not in PROBES:
            problem = self._unauthorised(scope, headers) or self._rate.exceeded(_caller(scope))
            if problem is not None:
                return problem
        return bad_body(scope, headers) or self._too_large(headers)

    def _unauthorised(self, scope: Scope, headers: Headers) -> Problem | None:
        if not self._settings.keys:
            return None
        key = holder(self._settings.keys, headers)
        if key is None:
            # the same words whatever was wrong
            return Problem.about(
                "unauthorised",
                "key",
                expected="Authorization: Bearer KEY or X-API-Key: KEY",
                got="no key that this service knows",
                do="ask whoever runs it for one",
                headers={"WWW-Authenticate": 'Bearer realm="voxport"'},
            )
        scope["state"]["principal"] = key.principal
        return None

    def _too_large(self, headers: Headers) -> Problem | None:
        limit = self._settings.max_body_bytes
        length = int(headers.get("content-length", "0"))
        return problem_of(BodyTooLargeError(limit)) if length > limit else None


def _caller(scope: Scope) -> tuple[str, str]:
    principal = scope["state"]["principal"]
    return ("address", peer_of(scope)) if principal == ANONYMOUS else ("key", principal)


def _access(scope: Scope, exchange: Exchange) -> Access:
    route = getattr(scope.get("route"), "path", UNMATCHED)
    return Access(
        exchange.request_id,
        method_name(scope["method"]),
        route,
        exchange.status,
        round(exchange.seconds, 6),
        exchange.bytes_in,
        exchange.bytes_out,
        scope["state"]["principal"],
    )
