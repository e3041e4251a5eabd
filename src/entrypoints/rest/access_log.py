"""The request log: one JSON line a request, with nothing in it that a caller chose freely."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from ..json_log import JsonLines

LOGGER = "voxport.access"
# a method is the caller's word: others than these are not repeated
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class Access:
    """One request and its answer.

    Args:
        request: the request's id.
        method: the HTTP method, or ``other``.
        route: the template of the route, never the path itself, or ``unmatched``.
        status: the answer's status; None where nothing was answered, because the caller had gone.
        seconds: from the request's headers to the answer's last byte.
        bytes_in: of the request's body, as far as it was read.
        bytes_out: of the answer's body.
        principal: the short id of the key, or ``anonymous``.
    """

    request: str
    method: str
    route: str
    status: int | None
    seconds: float
    bytes_in: int
    bytes_out: int
    principal: str


def access_logger() -> logging.Logger:
    """The logger of requests, writing JSON lines to standard error and nowhere else."""
    log = logging.getLogger(LOGGER)
    if not any(isinstance(handler.formatter, JsonLines) for handler in log.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


def write_access(log: logging.Logger, access: Access) -> None:
    """Log one request."""
    log.info("request", extra={"access": asdict(access)})


def method_name(method: str) -> str:
    """The method as the log names it."""
    return method if method in _METHODS else "other"
