"""Choosing and opening a runtime: certified ones by themselves, others only when asked for by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..domain.errors import UsageError
from ..domain.parity import FULL_PRECISION
from ..ports.model import Model, ModelFiles
from ..ports.model_repository import ModelRepository
from ..ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from .models import find_model

AUTO = "auto"
# Runtimes that load checkpoints; every other one loads ONNX files, and the first is what ``auto`` falls back to.
_CHECKPOINT_RUNTIMES = ("torch",)
# What a model file is certified for; a quantised network is another file, made on the machine that it is for.
CERTIFIABLE = (FULL_PRECISION, "bf16")


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and a precision to score with, and a warning if they are not certified for the model."""

    runtime: str
    precision: str
    warning: str | None = None


def choose_runtime(
    model: Model, openers: Mapping[str, RuntimeOpener], runtime: str = AUTO, precision: str = AUTO
) -> RuntimeChoice:
    """The runtime and precision for a model.

    ``auto`` takes fp32 in the runtime that the file format belongs to: for an ONNX file that is what its certificate
    was made with.

    Raises:
        UsageError: no such runtime here, or one that cannot load this format.
    """
    able = [name for name in openers if (name in _CHECKPOINT_RUNTIMES) == (model.format == "checkpoint")]
    name = _automatic(model, able, precision) if runtime == AUTO else runtime
    if name not in openers:
        known = ", ".join(openers)
        raise UsageError("--runtime", expected=f"auto or one of {known}", got=name, do="choose another")
    if name not in able:
        raise UsageError(
            "--runtime",
            expected=f"a runtime for {model.path.name}: {', '.join(able) or 'none is installed'}",
            got=name,
            do="give it a checkpoint with --card" if name == "torch" else "export the checkpoint to ONNX first",
        )
    wanted = "fp32" if precision == AUTO else precision
    return RuntimeChoice(name, wanted, _uncertified(model, name, wanted))


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
    """A model in a runtime, ready to score; ``warning`` says what its certificate does not cover."""

    model: Model
    runtime: InferenceRuntime
    warning: str | None = None


class ModelOpener:
    """Finds models by file or name, ``default`` where none is given, and loads them into runtimes."""

    def __init__(
        self, files: ModelFiles, repository: ModelRepository, openers: Mapping[str, RuntimeOpener], default: str
    ) -> None:
        self._default = default
        self._files = files
        self._repository = repository
        self._openers = openers

    def find(self, reference: str | None, card: Path | None = None) -> Model:
        """The model that a reference means; see ``find_model``."""
        return find_model(reference or self._default, card, self._files, self._repository)

    def load(self, model: Model, runtime: str = AUTO, precision: str = AUTO, threads: int | None = None) -> LoadedModel:
        """Load a model into the runtime that ``choose_runtime`` gives.

        Raises:
            ModelError, UsageError: as choosing and opening do.
        """
        choice = choose_runtime(model, self._openers, runtime, precision)
        opened = self._openers[choice.runtime](model, RuntimeOptions(choice.precision, threads))
        return LoadedModel(model, opened, choice.warning)


def _automatic(model: Model, able: list[str], precision: str) -> str:
    certificate = model.card.parity
    first = able[0] if able else "onnx" if model.format == "onnx" else _CHECKPOINT_RUNTIMES[0]
    if certificate is None or model.format == "checkpoint":
        return first
    wanted = "fp32" if precision == AUTO else precision
    certified = [name for name in able if certificate.certifies(name, wanted)]
    if certified or precision != AUTO:
        return certified[0] if certified else first
    raise UsageError(
        "--runtime auto",
        expected=f"a certified runtime for {model.card.reference}",
        got=f"none among {', '.join(able)}",
        do="certify one with voxport verify MODEL --against CHECKPOINT, or ask for one by name",
    )


def _uncertified(model: Model, runtime: str, precision: str) -> str | None:
    certificate = model.card.parity
    if model.format == "checkpoint":
        return None
    if certificate is None:
        return (
            f"{model.card.reference} has no parity certificate: "
            "nothing proves that this file does what its network did in training"
        )
    if certificate.certifies(runtime, precision):
        return None
    proved = ", ".join(f"{r.runtime} {r.precision}" for r in certificate.runtimes) or "nothing"
    return f"{runtime} {precision} is not certified for {model.card.reference} (certified: {proved})"
