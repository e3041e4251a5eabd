"""Tunings as JSON files ``MODEL/MACHINE.json`` in a folder, with quantised networks beside them.

Comparisons of runtimes are ``MODEL/compared/MACHINE.json``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ....domain.parity import RuntimeParity
from ....domain.tuning import Machine, Tuning
from ....ports.tunings import FoundTuning, TuningStore
from ...disk import output_errors, sha256, write_whole

_RECORD: TypeAdapter[Tuning] = TypeAdapter(Tuning)
_COMPARISON: TypeAdapter[RuntimeParity] = TypeAdapter(RuntimeParity)
_AGAIN = "tune it again with voxport tune"


class TuningDirectory(TuningStore):
    """`TuningStore` in a folder, created on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, model: str, machine: Machine) -> FoundTuning:
        path = self._record(model, machine)
        try:
            tuning = _RECORD.validate_json(path.read_bytes())
        except FileNotFoundError:
            if any(path.parent.glob("*.json")):
                what = "this model was tuned for another machine, other threads or other versions of libraries"
                return FoundTuning(warning=f"{what}, and runs untuned; {_AGAIN}")
            return FoundTuning()
        except (OSError, ValidationError) as error:
            return FoundTuning(
                warning=f"{path} cannot be read ({_reason(error)}), and the model runs untuned; {_AGAIN}"
            )
        if (tuning.model, tuning.machine) != (model, machine):
            return FoundTuning(warning=f"{path} is of another model or machine, and the model runs untuned; {_AGAIN}")
        return FoundTuning(tuning)

    def put(self, tuning: Tuning, quantised: Path | None = None) -> None:
        if tuning.quantised_sha256 is not None and (quantised is None or sha256(quantised) != tuning.quantised_sha256):
            raise ValueError("quantised: expected the file that the tuning names")
        record = self._record(tuning.model, tuning.machine)
        content = _RECORD.dump_json(tuning, indent=2)
        with output_errors(record):
            record.parent.mkdir(parents=True, exist_ok=True)
            # The network first, so that a record never names a missing file.
            if tuning.quantised_sha256 is not None and quantised is not None:
                write_whole(record.with_suffix(".int8.onnx"), quantised.read_bytes())
            write_whole(record, content)
            if tuning.quantised_sha256 is None:
                record.with_suffix(".int8.onnx").unlink(missing_ok=True)

    def quantised(self, tuning: Tuning) -> Path | None:
        path = self._record(tuning.model, tuning.machine).with_suffix(".int8.onnx")
        try:
            return path if tuning.quantised_sha256 == sha256(path) else None
        except OSError:
            return None

    def comparison(self, model: str, machine: Machine) -> RuntimeParity | None:
        try:
            return _COMPARISON.validate_json(self._compared(model, machine).read_bytes())
        except (OSError, ValidationError):
            return None

    def put_comparison(self, model: str, machine: Machine, parity: RuntimeParity) -> None:
        path = self._compared(model, machine)
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # unlike pydantic, json writes NaN, which a runtime may give
            write_whole(path, json.dumps(asdict(parity), indent=2).encode())

    def _compared(self, model: str, machine: Machine) -> Path:
        record = self._record(model, machine)
        return record.parent / "compared" / record.name

    def _record(self, model: str, machine: Machine) -> Path:
        text = repr(sorted(asdict(machine).items()))
        return self._folder / model / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _reason(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
