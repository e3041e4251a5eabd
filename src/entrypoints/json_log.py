"""Logs for operators: one JSON object a line on standard error, from service, worker and demo alike."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType

from ..settings import Settings

_log = logging.getLogger("voxport")
_SERVERS = ("bentoml", "circus", "uvicorn", "uvicorn.error")


class JsonLines(logging.Formatter):
    """Formats a record as one line of ASCII JSON that begins with the time, in UTC.

    ``fields`` of a record become members of the object. A record of ``access`` fields has no others.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        }
        access = getattr(record, "access", None)
        if isinstance(access, Mapping):
            return json.dumps({**entry, **access})
        entry |= {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            entry |= fields
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_as_json() -> None:
    """Send every log of this process to standard error as JSON lines: of voxport from INFO on, of others warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    for name in _SERVERS:
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = True
    logging.captureWarnings(True)
    _log_uncaught_errors()


def _log_uncaught_errors() -> None:
    """Log what Python itself would print as plain text: errors that end the process or a thread, and ignored ones."""

    def ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            _log.critical("the process ended with an error", exc_info=(kind, error, trace))

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            name = args.thread.name if args.thread else "unknown"
            _log.error("thread %s ended with an error", name, exc_info=args.exc_value)

    def ignored(args: sys.UnraisableHookArgs) -> None:
        _log.warning("%s: %r", args.err_msg or "exception ignored in", args.object, exc_info=args.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = ended, thread_ended, ignored


def announce(text: str) -> None:
    """Say what starts: a plain line on a terminal, else a line of the log."""
    if sys.stderr.isatty():
        sys.stderr.write(f"voxport: {text}\n")
        sys.stderr.flush()
    else:
        log_as_json()
        _log.info(text)


def check_models_folder(settings: Settings) -> None:
    """Log an error where the folder of models that the settings name does not exist."""
    folder = settings.models_dir.expanduser()
    if settings.store == "folder" and "models_dir" in settings.model_fields_set and not folder.is_dir():
        _log.error("models folder %s: expected a folder, got none; create it, or correct VOXPORT_MODELS_DIR", folder)
