"""OpenVINO without the part of it that reports its users.

``import openvino`` imports its model converter, which counts the import: it makes ``~/intel`` with an identifier of
the user and sends an event to Google Analytics, unless a file there says no. Nothing here converts models by that
converter, and OpenVINO does without it and without the reporting package where they cannot be imported. So they cannot.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ....domain.errors import UsageError

# None in sys.modules makes an import fail as if the module were not installed.
_REPORTING = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"
_importing = threading.Lock()


def openvino() -> ModuleType:
    """The library, silent for good: neither it nor what else this process imports can report.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("openvino") is None:
        do = "pip install 'voxport[openvino]', or take another runtime"
        raise UsageError("runtime openvino", expected="the package openvino", got="none", do=do)
    with _importing:
        if "openvino" not in sys.modules:
            sys.modules[_REPORTING] = None  # type: ignore[assignment]
            sys.modules[_CONVERTER] = None  # type: ignore[assignment]
            import_module("openvino")
            del sys.modules[_CONVERTER]  # whoever wants it can still have it; it has nothing to report with
        return sys.modules["openvino"]
