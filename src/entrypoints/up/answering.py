"""``python -m voxport.entrypoints.up.answering URL``: health check with exit code 0 if a local server responds."""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

_SECONDS = 5.0


def answers(url: str) -> bool:
    """Return whether a local server answers ``GET url`` over plain HTTP with a status below 400."""
    parts = urlsplit(url)
    # urllib would use a proxy
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not answers(sys.argv[1]))
