"""OpenVINO without telemetry.

``import openvino`` imports its model converter, which reports the import: it creates ``~/intel`` with a user identifier
and sends an event to Google Analytics unless a file there forbids it. voxport does not need the converter, so both it
and the telemetry package are blocked.
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
    """Import the library without telemetry, for the whole process.

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
            del sys.modules[_CONVERTER]  # can be imported again, without telemetry
        return sys.modules["openvino"]
