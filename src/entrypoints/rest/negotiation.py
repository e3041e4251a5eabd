"""Which form of answer a request accepts."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request


def accepted(request: Request, *offers: str) -> tuple[str, ...]:
    """The media types among ``offers`` that the Accept header takes, those that it prefers first.

    Raises:
        HTTPException: 406 where it takes none of them.
    """
    header = ",".join(request.headers.getlist("accept")) or "*/*"
    weights = {offer: _weight(header, offer) for offer in offers}
    taken = tuple(sorted((offer for offer in offers if weights[offer] > 0), key=lambda offer: -weights[offer]))
    if not taken:
        raise HTTPException(406, f"expected Accept to take one of {', '.join(offers)}, got {header[:200]}; widen it")
    return taken


def _weight(header: str, offer: str) -> float:
    """The q of the most specific range that matches (RFC 9110, 12.5.1); 0 where none does."""
    best = (-1, 0.0)
    for part in header.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        ranges = {offer: 2, f"{offer.split('/')[0]}/*": 1, "*/*": 0}
        if media in ranges:
            best = max(best, (ranges[media], _quality(parameters)))
    return best[1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
