"""Find a model, and load it in a runtime. Uncertified runtimes are used only by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ...domain.cards.writing import write_card
from ...domain.errors import UsageError
from ...domain.parity import BOUNDS, FULL_PRECISION, Bounds
from ...domain.tuning import Choice, Machine, Tuning
from ...ports.model import Model, ModelFiles
from ...ports.model_repository import ModelRepository
from ...ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from ...ports.tunings import FoundTuning, TuningStore
from .probing import checked_model

AUTO = "auto"
# Runtimes that load checkpoints; all others load ONNX files. ``auto`` defaults to the first.
_CHECKPOINT_RUNTIMES = ("torch",)
# Precisions of certificates; a quantised network is another file, made on the machine that runs it.
CERTIFIABLE = (FULL_PRECISION, "bf16")
QUANTISED = "int8"
# Default runtime of lower precisions.
_BELOW_FP32 = "openvino"
_OUT_OF_BOUNDS = "what was kept when this model was tuned does not keep to the bounds that are set now; tune it again"
_FILE_SUFFIXES = (".onnx", ".pt", ".pth", ".ts", ".ckpt")


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and precision, with a warning if they are not certified for the model.

    ``tuned`` is the measured configuration, if the choice comes from a tuning.
    """

    runtime: str
    precision: str
    warning: str | None = None
    tuned: Choice | None = None


def choose_runtime(
    model: Model,
    openers: Mapping[str, RuntimeOpener],
    runtime: str = AUTO,
    precision: str = AUTO,
    *,
    tuning: Tuning | None = None,
    bounds: Bounds = BOUNDS,
) -> RuntimeChoice:
    """Choose runtime and precision for a model.

    ``auto`` uses the fastest tuned configuration within the bounds. Without a tuning it uses fp32 in the runtime of the
    file format, which for an ONNX file is the certified one.

    Raises:
        UsageError: the runtime is unknown or cannot load this format.
    """
    if runtime == AUTO and tuning is not None:
        tuned = tuning.chosen(bounds) if precision == AUTO else tuning.fastest(precision, bounds)
        if tuned is not None and tuned.runtime in openers:
            warning = _no_certificate(model)
            return RuntimeChoice(tuned.runtime, tuned.precision, warning, tuned)
    able = [name for name in openers if (name in _CHECKPOINT_RUNTIMES) == (model.format == "checkpoint")]
    name = _automatic(model, able, precision, bounds) if runtime == AUTO else runtime
    if name not in openers:
        known = ", ".join(openers)
        raise UsageError("runtime", expected=f"auto or one of {known}", got=name, do="choose another")
    if name not in able:
        raise UsageError(
            "runtime",
            expected=f"a runtime for {model.path.name}: {', '.join(able) or 'none is installed'}",
            got=name,
            do="give it a checkpoint and its `card`" if name == "torch" else "export the checkpoint to ONNX first",
        )
    wanted = FULL_PRECISION if precision == AUTO else precision
    measured = tuning is not None and any(
        (c.choice.runtime, c.choice.precision) == (name, wanted) and c.holds(bounds) for c in tuning.candidates
    )
    warning = _no_certificate(model) if measured else _uncertified(model, name, wanted, bounds)
    return RuntimeChoice(name, wanted, warning)


def other_ways(model: Model, openers: Mapping[str, RuntimeOpener], but: tuple[str, str]) -> Iterator[InferenceRuntime]:
    """Yield the model in every other installed runtime and precision."""
    for name, opener in openers.items():
        for precision in CERTIFIABLE:
            if name not in _CHECKPOINT_RUNTIMES and (name, precision) != but:
                try:
                    opened = opener(model, RuntimeOptions(precision))
                except UsageError:
                    continue  # not installed, or not supported by this processor
                yield opened


@dataclass(frozen=True)
class LoadedModel:
    """A model in a runtime; ``warning`` is about a missing certificate.

    ``tuned`` is the tuned configuration in use, which sets the default patch and batch. ``quantised_sha256`` is the
    hash of the quantised file, if used. ``bounds`` apply to certificates below fp32.
    """

    model: Model
    runtime: InferenceRuntime
    warning: str | None = None
    tuned: Choice | None = None
    quantised_sha256: str | None = None
    bounds: Bounds = BOUNDS

    @property
    def certified(self) -> bool:
        """Whether the certificate includes this runtime and precision."""
        certificate = self.model.card.parity
        return certificate is not None and certificate.certifies(self.runtime.name, self.runtime.precision, self.bounds)


def model_key(model: Model) -> str:
    """Return a hash of what a tuning depends on: weights, and the card's input, tiling and output."""
    card = write_card(model.card)
    parts = {name: card[name] for name in ("input", "tiling", "inference", "output") if name in card}
    return hashlib.sha256(f"{model.weights_sha256} {json.dumps(parts, sort_keys=True)}".encode()).hexdigest()


@dataclass(frozen=True)
class Tunings:
    """Tunings of this machine, and their bounds."""

    store: TuningStore
    machine: Machine
    bounds: Bounds = BOUNDS

    def find(self, model: Model) -> FoundTuning:
        """Return the tuning of a model, or None."""
        return self.store.find(model_key(model), self.machine) if model.format == "onnx" else FoundTuning()


def names_a_model(reference: str) -> bool:
    """Return whether a reference has the form of a model: a model file's suffix, NAME or NAME:VERSION."""
    path = Path(reference).expanduser()
    return path.suffix.lower() in _FILE_SUFFIXES or not (_is_file_name(path) or "." in path.name.split(":")[0])


def _is_file_name(path: Path) -> bool:
    return path.suffix.lower() in _FILE_SUFFIXES or path.is_file() or len(path.parts) > 1


class ModelOpener:
    """Finds models by file or name (``default`` if None) and loads them in runtimes."""

    def __init__(
        self,
        files: ModelFiles,
        repository: ModelRepository,
        openers: Mapping[str, RuntimeOpener],
        default: str,
        tunings: Tunings | None = None,
    ) -> None:
        self._default = default
        self._files = files
        self._repository = repository
        self._openers = openers
        self._tunings = tunings

    def find(self, reference: str | None, card: Path | None = None) -> Model:
        """Find the model file at a path, or the model of a name. Raises ModelError if it is missing or invalid."""
        reference = reference or self._default
        path = Path(reference).expanduser()
        return self._files.read(path, card) if _is_file_name(path) else self._repository.get(reference)

    def load(self, model: Model, runtime: str = AUTO, precision: str = AUTO, threads: int | None = None) -> LoadedModel:
        """Load a model in the runtime chosen by `choose_runtime`.

        Raises:
            ModelError, UsageError: as choosing and opening; also for int8 without a quantised file.
        """
        found = FoundTuning() if self._tunings is None else self._tunings.find(model)
        bounds = BOUNDS if self._tunings is None else self._tunings.bounds
        choice = choose_runtime(model, self._openers, runtime, precision, tuning=found.tuning, bounds=bounds)
        inferred = model if choice.precision != QUANTISED else self._quantised(model, found.tuning)
        wanted = threads if threads is not None or choice.tuned is None else choice.tuned.threads
        opened = self._openers[choice.runtime](inferred, RuntimeOptions(choice.precision, wanted))
        try:
            fitted = checked_model(model, opened, twice=model.card.parity is None).card
        except BaseException:
            opened.close()
            raise
        notes = [choice.warning]
        if runtime == AUTO and choice.tuned is None:
            notes.append(found.warning or (None if found.tuning is None else _OUT_OF_BOUNDS))
        return LoadedModel(
            replace(model, card=fitted),
            opened,
            "; ".join(filter(None, notes)) or None,
            choice.tuned,
            None if inferred is model or found.tuning is None else found.tuning.quantised_sha256,
            bounds,
        )

    def check(self, model: Model) -> None:
        """Run a dummy patch through an ONNX model, in the runtime that is always installed; see ``checked_model``."""
        if model.format == "onnx":
            with closing(self._openers["onnx"](model, RuntimeOptions())) as opened:
                checked_model(model, opened, twice=True)

    def _quantised(self, model: Model, tuning: Tuning | None) -> Model:
        """Return the model with the path of its quantised file, or unchanged without tunings."""
        if self._tunings is None:
            return model
        path = None if tuning is None else self._tunings.store.quantised(tuning)
        if path is None:
            raise UsageError(
                "precision int8",
                expected=f"a quantised form of {model.card.reference} that keeps to the bounds on this machine",
                got="none",
                do="make one with voxport tune MODEL; it says if none is as good as fp32",
            )
        return replace(model, path=path)


def _automatic(model: Model, able: list[str], precision: str, bounds: Bounds) -> str:
    certificate = model.card.parity
    first = able[0] if able else "onnx" if model.format == "onnx" else _CHECKPOINT_RUNTIMES[0]
    if precision not in (AUTO, FULL_PRECISION) and _BELOW_FP32 in able:
        first = _BELOW_FP32
    if certificate is None or model.format == "checkpoint":
        return first
    wanted = FULL_PRECISION if precision == AUTO else precision
    certified = [name for name in able if certificate.certifies(name, wanted, bounds)]
    if certified or precision != AUTO:
        return certified[0] if certified else first
    raise UsageError(
        "runtime auto",
        expected=f"a certified runtime for {model.card.reference}",
        got=f"none among {', '.join(able)}",
        do="certify one with voxport verify, `against` the checkpoint, or ask for one by name",
    )


def _no_certificate(model: Model) -> str | None:
    if model.card.parity is not None or model.format == "checkpoint":
        return None
    return (
        f"{model.card.reference} has no parity certificate: "
        "nothing proves that this file does what its network did in training"
    )


def _uncertified(model: Model, runtime: str, precision: str, bounds: Bounds) -> str | None:
    certificate = model.card.parity
    if certificate is None or model.format == "checkpoint":
        return _no_certificate(model)
    if certificate.certifies(runtime, precision, bounds):
        return None
    proved = ", ".join(f"{r.runtime} {r.precision}" for r in certificate.runtimes) or "nothing"
    return f"{runtime} {precision} is not certified for {model.card.reference} (certified: {proved})"
