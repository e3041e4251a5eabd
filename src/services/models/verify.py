"""Compare a runtime with the source network on reproducible inputs, and certify it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError, UsageError
from ...domain.labels.label_map import Logits
from ...domain.parity import (
    BOUNDS,
    FULL_PRECISION,
    LARGEST_PROBABILITY_DIFFERENCE,
    LEAST_LABEL_AGREEMENT,
    SAMPLES_PER_INPUT,
    Bounds,
    Certificate,
    Parity,
    ProbeInput,
    RuntimeParity,
    compare,
)
from ...ports.model import Model, ModelFiles
from ...ports.progress import ProgressListener
from ...ports.runtime import InferenceRuntime, RuntimeOpener, RuntimeOptions
from .loading import LoadedModel, every_way
from .probing import check_repeats, check_shapes, infer_probes, parity_of, probe_inputs


@dataclass(frozen=True)
class Verification:
    """Parity of a runtime; ``others`` holds the other installed runtimes and precisions, in bounds or not."""

    entry: RuntimeParity
    against: str
    probes: tuple[ProbeInput, ...]
    others: tuple[RuntimeParity, ...] = ()


def verify_against(
    model: Model,
    runtime: InferenceRuntime,
    source: InferenceRuntime,
    progress: ProgressListener,
    *,
    openers: Mapping[str, RuntimeOpener] | None = None,
    bounds: Bounds = BOUNDS,
) -> Verification:
    """Compare a runtime with the source network, then every other runtime of ``openers``.

    Raises:
        ModelError: the runtime differs; the message gives the largest difference and its voxel.
    """
    probes = probe_inputs(model.card, runtime.input_shape)
    progress.stage("compare", 2 * len(probes))
    output = model.card.output
    expected = infer_probes(source, probes, output, progress)
    found = infer_probes(runtime, probes, output, progress)
    for logits in expected:
        output = output.fitted(logits.shape[1])
        output.check_logits(logits)
    if output.activation != "labels":
        check_repeats(source, probes[0].array(), expected[0], model.path.name)
    check_shapes(model, expected, found)
    entry = parity_of(runtime, compare(expected, found, output))
    sampled = tuple(
        replace(probe, probabilities=probe.sampled(logits, output))
        for probe, logits in zip(probes, expected, strict=True)
    )
    if not entry.holds(bounds):
        raise _differs(model, runtime, entry.parity, _where(expected, found, model.card), bounds)
    others = _others(model, runtime, openers or {}, probes, expected, progress)
    return Verification(entry, f"{source.name} {source.version}", sampled, others)


def verify_again(
    model: Model,
    runtime: InferenceRuntime,
    progress: ProgressListener,
    *,
    openers: Mapping[str, RuntimeOpener] | None = None,
) -> Verification:
    """Compare a runtime with the probabilities stored in the certificate, then every other runtime with it.

    Label agreement and Dice are copied from the certificate, because it stores samples of probabilities only.

    Raises:
        ModelError: no certificate, no samples, or the runtime differs.
        UsageError: the runtime is not fp32, where so few samples are not conclusive.
    """
    certificate = model.card.parity
    if certificate is None or not _can_be_checked(certificate):
        raise ModelError(
            model.path.name,
            expected="a parity certificate to check again",
            got="none" if certificate is None else "one that holds nothing to compare with",
            do="prove it with voxport verify, `against` its checkpoint",
        )
    if runtime.precision != FULL_PRECISION:
        do = "prove it `against` the checkpoint, or measure it here with voxport tune MODEL"
        raise UsageError("precision", expected="fp32 without a checkpoint", got=runtime.precision, do=do)
    progress.stage("compare", len(certificate.probes))
    output = model.card.output
    found = infer_probes(runtime, certificate.probes, output, progress)
    largest = 0.0
    for probe, logits in zip(certificate.probes, found, strict=True):
        output = output.fitted(logits.shape[1])
        difference = np.subtract(probe.sampled(logits, output), probe.probabilities)
        largest = float(np.maximum(largest, np.abs(difference).max()))  # unlike max, keeps a NaN
    proved = next(
        (r.parity for r in certificate.runtimes if (r.runtime, r.precision) == (runtime.name, runtime.precision)),
        certificate.runtimes[0].parity,
    )
    if not largest <= LARGEST_PROBABILITY_DIFFERENCE * proved.slack:
        raise _differs(model, runtime, Parity(0.0, (), largest), "at the certificate's sample voxels")
    parity = replace(proved, max_probability_difference=largest)
    others = _others(model, runtime, openers or {}, certificate.probes, found, progress)
    return Verification(
        parity_of(runtime, parity), f"the certificate of {certificate.date}", certificate.probes, others
    )


def certified(model: Model, verification: Verification, bounds: Bounds = BOUNDS) -> ModelCard:
    """Return the card with the new results in its certificate. Configurations that no longer hold are removed."""
    today = datetime.now(UTC).date().isoformat()
    old = model.card.parity
    kept = old.runtimes if old is not None and old.weights_sha256 == model.weights_sha256 else ()
    tried = {(r.runtime, r.precision) for r in (verification.entry, *verification.others)}
    untried = (r for r in kept if (r.runtime, r.precision) not in tried)
    held = (r for r in verification.others if r.holds(bounds))
    entries = (*untried, verification.entry, *held)
    return model.card.with_parity(Certificate(model.weights_sha256, today, verification.probes, entries))


def verify(
    loaded: LoadedModel,
    checkpoint: Path | None,
    progress: ProgressListener,
    *,
    open_source: RuntimeOpener,
    files: ModelFiles,
    openers: Mapping[str, RuntimeOpener] | None = None,
    bounds: Bounds = BOUNDS,
) -> Verification:
    """Compare a model with its checkpoint and write the certificate to the file.

    Without a checkpoint, compare it with its certificate and write nothing. Every runtime of ``openers`` is compared
    too, and certified in each precision that holds, below fp32 within ``bounds``.

    Raises:
        ModelError: they differ, or the checkpoint does not fit the network in the card's provenance.
        OutputError: the model file cannot be written.
    """
    model, runtime = loaded.model, loaded.runtime
    if checkpoint is None:
        return verify_again(model, runtime, progress, openers=openers)
    source_model = Model(checkpoint, model.card, "", "", "checkpoint")
    with closing(open_source(source_model, RuntimeOptions())) as source:
        proved = verify_against(model, runtime, source, progress, openers=openers, bounds=bounds)
    files.write(model.path, certified(model, proved, bounds), model.path)
    return proved


def _others(
    model: Model,
    runtime: InferenceRuntime,
    openers: Mapping[str, RuntimeOpener],
    probes: Sequence[ProbeInput],
    expected: Sequence[Logits],
    progress: ProgressListener,
) -> tuple[RuntimeParity, ...]:
    """Return the parity of every other installed runtime and precision on the same inputs."""
    found = []
    for other in every_way(model, openers, but=(runtime.name, runtime.precision)):
        with closing(other):
            progress.stage(f"compare {other.name} {other.precision}", len(probes))
            logits = infer_probes(other, probes, model.card.output, progress)
            check_shapes(model, expected, logits)
            found.append(parity_of(other, compare(expected, logits, model.card.output)))
    return tuple(found)


def _can_be_checked(certificate: Certificate) -> bool:
    samples = {len(probe.probabilities) for probe in certificate.probes}
    return bool(certificate.runtimes) and samples == {SAMPLES_PER_INPUT}


def _where(expected: Sequence[Logits], found: Sequence[Logits], card: ModelCard) -> str:
    """Return the voxel with the largest difference of probabilities."""
    worst, place = -1.0, ""
    for one, other in zip(expected, found, strict=True):
        for case, (a, b) in enumerate(zip(one, other, strict=True)):
            difference = np.abs(card.output.probabilities(a) - card.output.probabilities(b))
            difference[np.isnan(difference)] = np.inf  # NaN counts as the largest difference
            at = np.unravel_index(int(np.argmax(difference)), difference.shape)
            if difference[at] > worst:
                worst = float(difference[at])
                place = f"channel {at[0]}, voxel {tuple(int(i) for i in at[1:])} of case {case} in {one.shape}"
    return f"most at {place}"


def _differs(
    model: Model, runtime: InferenceRuntime, parity: Parity, where: str, bounds: Bounds = BOUNDS
) -> ModelError:
    found = [f"a difference of {parity.max_probability_difference:.3g}"]
    if parity.dice:
        found = [f"label agreement {parity.label_agreement:.6f}", f"least Dice {min(parity.dice):.6f}", *found]
    wanted = (
        f"labels (agreement >= {LEAST_LABEL_AGREEMENT}) and probabilities (within {LARGEST_PROBABILITY_DIFFERENCE:g})"
    )
    if runtime.precision != FULL_PRECISION:
        wanted = f"labels (agreement >= {bounds.label_agreement:g}, Dice >= {bounds.dice:g})"
    return ModelError(
        model.path.name,
        expected=f"the source network's {wanted}",
        got=f"{', '.join(found)} with {runtime.name} {runtime.precision}, {where}",
        do="do not use it; export again from the right checkpoint",
    )
