"""Find a model, and load it in a runtime. Runtimes that nothing proves are used only by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...domain.cards.writing import write_card
from ...domain.errors import ModelError, OutputError, UsageError
from ...domain.parity import BOUNDS, FULL_PRECISION, Bounds, RuntimeParity
from ...domain.tuning import Choice, Machine, Tuning
from ...ports.model import Model, ModelFiles
from ...ports.model_repository import ModelRepository
from ...ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from ...ports.tunings import FoundTuning, TuningStore
from .probing import checked_model, compare_runtimes

AUTO = "auto"
# Runtimes that load checkpoints; all others load ONNX files.
_CHECKPOINT_RUNTIMES = ("torch",)
# What ``auto`` takes of an ONNX file's runtimes, the fastest first. The last one is installed everywhere.
_FASTEST_FIRST = (("openvino", "bf16"), ("openvino", "fp32"), ("onnx", "fp32"))
# Compared with the last one when a model is first loaded on a machine, if the certificate says nothing of it.
_COMPARED_HERE = ("openvino", "fp32")
# Precisions of certificates; a quantised network is another file, made on the machine that runs it.
CERTIFIABLE = (FULL_PRECISION, "bf16")
QUANTISED = "int8"
_OUT_OF_BOUNDS = "what was kept when this model was tuned does not keep to the bounds that are set now; tune it again"
_FILE_SUFFIXES = (".onnx", ".pt", ".pth", ".ts", ".ckpt")


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and precision, why they were chosen, and a warning if nothing proves them for the model.

    ``tuned`` is the measured configuration, if the choice comes from a tuning.
    """

    runtime: str
    precision: str
    reason: str
    warning: str | None = None
    tuned: Choice | None = None


def runtime_choices(
    model: Model,
    openers: Mapping[str, RuntimeOpener],
    runtime: str = AUTO,
    precision: str = AUTO,
    *,
    tuning: Tuning | None = None,
    compared: Sequence[RuntimeParity] = (),
    bounds: Bounds = BOUNDS,
) -> tuple[RuntimeChoice, ...]:
    """Return the runtimes and precisions to try for a model, the best first; more than one only for ``auto``.

    ``auto`` is the fastest tuned configuration within the bounds. Without a tuning it is the fastest that the
    certificate, or a comparison on this machine (``compared``), proves.

    Raises:
        UsageError: the runtime is unknown or cannot load this format, or nothing is proved.
    """
    if runtime == AUTO and tuning is not None:
        tuned = tuning.chosen(bounds) if precision == AUTO else tuning.fastest(precision, bounds)
        if tuned is not None and tuned.runtime in openers:
            reason = "the fastest that voxport tune measured on this machine"
            return (RuntimeChoice(tuned.runtime, tuned.precision, reason, _no_certificate(model), tuned),)
    able = [name for name in openers if (name in _CHECKPOINT_RUNTIMES) == (model.format == "checkpoint")]
    if runtime == AUTO and model.format == "onnx":
        return _automatic(model, able, precision, compared, bounds)
    name = _CHECKPOINT_RUNTIMES[0] if runtime == AUTO else runtime
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
    reason = "the runtime of checkpoints" if runtime == AUTO else "asked for"
    measured = tuning is not None and any(
        (c.choice.runtime, c.choice.precision) == (name, wanted) and c.holds(bounds) for c in tuning.candidates
    )
    warning = _no_certificate(model) if measured else _uncertified(model, name, wanted, bounds)
    return (RuntimeChoice(name, wanted, reason, warning),)


def open_first(
    choices: Sequence[RuntimeChoice], openers: Mapping[str, RuntimeOpener], model: Model, threads: int | None
) -> tuple[RuntimeChoice, InferenceRuntime]:
    """Open a model in the first of these runtimes that is installed and has the precision on this processor.

    Raises:
        UsageError, ModelError: as opening the last one.
    """
    *preferred, last = choices
    for choice in preferred:
        with suppress(UsageError):
            return choice, openers[choice.runtime](model, RuntimeOptions(choice.precision, threads))
    return last, openers[last.runtime](model, RuntimeOptions(last.precision, threads))


def every_way(
    model: Model,
    openers: Mapping[str, RuntimeOpener],
    *,
    but: tuple[str, str] | None = None,
    threads: int | None = None,
) -> Iterator[InferenceRuntime]:
    """Yield the model in every installed runtime and precision, except one; the caller closes each."""
    for name, opener in openers.items():
        for precision in CERTIFIABLE:
            if name not in _CHECKPOINT_RUNTIMES and (name, precision) != but:
                try:
                    opened = opener(model, RuntimeOptions(precision, threads))
                except UsageError:
                    continue  # not installed, or not supported by this processor
                yield opened


@dataclass(frozen=True)
class LoadedModel:
    """A model in a runtime; ``reason`` says why in this one, ``warning`` is about a missing certificate.

    ``tuned`` is the tuned configuration in use, which sets the default patch and batch. ``quantised_sha256`` is the
    hash of the quantised file, if used. ``bounds`` apply to certificates below fp32.
    """

    model: Model
    runtime: InferenceRuntime
    warning: str | None = None
    tuned: Choice | None = None
    quantised_sha256: str | None = None
    bounds: Bounds = BOUNDS
    reason: str = "asked for"

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

    def compared(self, model: Model) -> RuntimeParity | None:
        """Return how a model's runtime compared with another on this machine, or None."""
        return self.store.comparison(model_key(model), self.machine)

    def keep(self, model: Model, comparison: RuntimeParity) -> None:
        """Keep a comparison for the next time; where nothing can be written, it is made again then."""
        with suppress(OutputError):
            self.store.put_comparison(model_key(model), self.machine, comparison)


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

    def load(
        self,
        model: Model,
        runtime: str = AUTO,
        precision: str = AUTO,
        threads: int | None = None,
        *,
        quantised: bool = True,
    ) -> LoadedModel:
        """Load a model in the first of the `runtime_choices` that can be opened here.

        Without ``quantised``, ``auto`` takes the model's own file, not the one that ``tune`` made of it.

        Raises:
            ModelError, UsageError: as choosing and opening; also for int8 without a quantised file.
        """
        found = FoundTuning() if self._tunings is None else self._tunings.find(model)
        if not quantised and found.tuning is not None and found.tuning.choice.precision == QUANTISED:
            found = FoundTuning()
        bounds = BOUNDS if self._tunings is None else self._tunings.bounds
        untuned = runtime == AUTO and found.tuning is None and precision in (AUTO, FULL_PRECISION)
        choices = runtime_choices(
            model,
            self._openers,
            runtime,
            precision,
            tuning=found.tuning,
            compared=self._compared(model, bounds) if untuned else (),
            bounds=bounds,
        )
        inferred = self._quantised(model, found.tuning) if choices[0].precision == QUANTISED else model
        tuned = choices[0].tuned
        wanted = threads if threads is not None or tuned is None else tuned.threads
        choice, opened = open_first(choices, self._openers, inferred, wanted)
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
            choice.reason,
        )

    def _compared(self, model: Model, bounds: Bounds) -> tuple[RuntimeParity, ...]:
        """Compare a faster runtime with the one that is always installed, the first time that a model is loaded here.

        Nothing is compared without tunings to keep the result in, where the certificate speaks of the runtime already,
        or where it does not certify the other one.
        """
        certificate, (name, precision), (usual, full) = model.card.parity, _COMPARED_HERE, _FASTEST_FIRST[-1]
        if self._tunings is None or model.format != "onnx" or not {name, usual} <= set(self._openers):
            return ()
        if certificate is not None and (
            certificate.mentions(name, precision) or not certificate.certifies(usual, full, bounds)
        ):
            return ()
        kept = self._tunings.compared(model)
        if kept is None:
            try:
                with (
                    closing(self._openers[name](model, RuntimeOptions(precision))) as runtime,
                    closing(self._openers[usual](model, RuntimeOptions(full))) as reference,
                ):
                    kept = compare_runtimes(model, runtime, reference)
            except (UsageError, ModelError):
                return ()  # not installed, or a file that only one of them can load
            self._tunings.keep(model, kept)
        return (kept,)

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


def _automatic(
    model: Model, able: Sequence[str], precision: str, compared: Sequence[RuntimeParity], bounds: Bounds
) -> tuple[RuntimeChoice, ...]:
    """Return what is proved for an ONNX file, the fastest first.

    A file without a certificate runs in what is always installed, or what gave the same there. A precision that is
    asked for runs with a warning if nothing proves it.
    """
    certificate, warning = model.card.parity, _no_certificate(model)
    here = {(r.runtime, r.precision) for r in compared if r.holds(bounds)}
    wanted = FULL_PRECISION if precision == AUTO else precision
    ways = [way for way in _FASTEST_FIRST if way[0] in able and precision in (AUTO, way[1])]
    ways += [(name, wanted) for name in able if (name, wanted) not in ways]
    choices = []
    for way in ways:
        if certificate is not None and certificate.certifies(*way, bounds):
            choices.append(RuntimeChoice(*way, "the fastest of those that the certificate covers"))
        elif way in here:
            reason = f"compared with {' '.join(_FASTEST_FIRST[-1])} on this machine, it gives the same"
            choices.append(RuntimeChoice(*way, reason, warning))
        elif certificate is None and way == _FASTEST_FIRST[-1]:
            choices.append(RuntimeChoice(*way, "the runtime that is always installed", warning))
    if not choices and (certificate is None or precision != AUTO):
        name = ways[0][0]
        choices.append(RuntimeChoice(name, wanted, "asked for", _uncertified(model, name, wanted, bounds)))
    if choices:
        return tuple(choices)
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
