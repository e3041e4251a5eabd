"""Suppression of the exporters' output."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

_TALKERS = ("torch", "onnxscript", "onnx_ir")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress output, warnings and logs of torch and onnxscript, process-wide."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _TALKERS]
        # Loggers made inside hand their records to these three, which hand them to nobody.
        for logger in map(logging.getLogger, {*known, *_TALKERS}):
            stack.callback(_restore, logger, list(logger.handlers), logger.propagate)
            logger.handlers = [logging.NullHandler()]
            logger.propagate = logger.name not in _TALKERS
        yield


def _restore(logger: logging.Logger, handlers: list[logging.Handler], propagate: bool) -> None:
    logger.handlers = handlers
    logger.propagate = propagate
