"""Choosing and opening a runtime: certified ones by themselves, others only when asked for by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...domain.cards.writing import write_card
from ...domain.errors import UsageError
from ...domain.geometry.grid import Shape3
from ...domain.parity import BOUNDS, FULL_PRECISION, Bounds
from ...domain.tuning import Choice, Machine, Tuning
from ...ports.model import Model, ModelFiles
from ...ports.model_repository import ModelRepository
from ...ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from ...ports.tunings import FoundTuning, TuningStore
from .find import find_model

AUTO = "auto"
# Runtimes that load checkpoints; every other one loads ONNX files, and the first is what ``auto`` falls back to.
_CHECKPOINT_RUNTIMES = ("torch",)
# What a model file is certified for; a quantised network is another file, made on the machine that it is for.
CERTIFIABLE = (FULL_PRECISION, "bf16")
QUANTISED = "int8"
# The runtime that lower precisions are for, where nothing else says so.
_BELOW_FP32 = "openvino"


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and a precision to score with, and a warning if they are not certified for the model.

    ``tuned`` is set where they were measured on this machine, and chosen for that.
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
    """The runtime and precision for a model.

    ``auto`` takes what a tuning found to be the fastest of what keeps to the bounds. Without one it takes fp32 in the
    runtime that the file format belongs to: for an ONNX file that is what its certificate was made with.

    Raises:
        UsageError: no such runtime here, or one that cannot load this format.
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
    """The model in each runtime and precision that is installed here, one after the other, but for the one named."""
    for name, opener in openers.items():
        for precision in CERTIFIABLE:
            if name not in _CHECKPOINT_RUNTIMES and (name, precision) != but:
                try:
                    opened = opener(model, RuntimeOptions(precision))
                except UsageError:
                    continue  # not installed, or not on this processor
                yield opened


@dataclass(frozen=True)
class LoadedModel:
    """A model in a runtime, ready to score; ``warning`` says what its certificate does not cover.

    ``tuned`` is the way to score that was measured and kept on this machine, where that was taken: its patch and its
    batch count where a run names none. ``quantised_sha256`` says which file was scored with if that is not the model's
    own, and ``bounds`` what certificates below fp32 must keep to.
    """

    model: Model
    runtime: InferenceRuntime
    warning: str | None = None
    tuned: Choice | None = None
    quantised_sha256: str | None = None
    bounds: Bounds = BOUNDS

    @property
    def tuned_patch(self) -> Shape3 | None:
        """The patch that was tuned for this machine."""
        return None if self.tuned is None else self.tuned.patch

    @property
    def certified(self) -> bool:
        """Whether this runtime and precision are in the model's certificate."""
        certificate = self.model.card.parity
        return certificate is not None and certificate.certifies(self.runtime.name, self.runtime.precision, self.bounds)


def model_key(model: Model) -> str:
    """What a tuning of a model depends on: its weights, and what its card says of input, tiles and output."""
    card = write_card(model.card)
    told = {name: card[name] for name in ("input", "tiling", "output")}
    return hashlib.sha256(f"{model.weights_sha256} {json.dumps(told, sort_keys=True)}".encode()).hexdigest()


@dataclass(frozen=True)
class Tunings:
    """What was measured on this machine, and what it must keep to."""

    store: TuningStore
    machine: Machine
    bounds: Bounds = BOUNDS

    def find(self, model: Model) -> FoundTuning:
        """The tuning of a model."""
        return self.store.find(model_key(model), self.machine) if model.format == "onnx" else FoundTuning()


class ModelOpener:
    """Finds models by file or name, ``default`` where none is given, and loads them into runtimes."""

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
        """The model that a reference means; see ``find_model``."""
        return find_model(reference or self._default, card, self._files, self._repository)

    def load(self, model: Model, runtime: str = AUTO, precision: str = AUTO, threads: int | None = None) -> LoadedModel:
        """Load a model into the runtime that ``choose_runtime`` gives.

        Raises:
            ModelError, UsageError: as choosing and opening do, and for int8 where there is no quantised form.
        """
        found = FoundTuning() if self._tunings is None else self._tunings.find(model)
        bounds = BOUNDS if self._tunings is None else self._tunings.bounds
        choice = choose_runtime(model, self._openers, runtime, precision, tuning=found.tuning, bounds=bounds)
        inferred = model if choice.precision != QUANTISED else self._quantised(model, found.tuning)
        wanted = threads if threads is not None or choice.tuned is None else choice.tuned.threads
        opened = self._openers[choice.runtime](inferred, RuntimeOptions(choice.precision, wanted))
        notes = [choice.warning]
        if runtime == AUTO and choice.tuned is None:
            notes.append(found.warning or _out_of_bounds(found.tuning))
        return LoadedModel(
            model,
            opened,
            "; ".join(filter(None, notes)) or None,
            choice.tuned,
            None if inferred is model or found.tuning is None else found.tuning.quantised_sha256,
            bounds,
        )

    def _quantised(self, model: Model, tuning: Tuning | None) -> Model:
        """The model with the path of its quantised form; as it is where there are no tunings to look into."""
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


def _out_of_bounds(tuning: Tuning | None) -> str | None:
    if tuning is None:
        return None
    return "what was kept when this model was tuned does not keep to the bounds that are set now; tune it again"


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
