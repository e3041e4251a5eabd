"""Prove that a runtime scores like the source network, on reproducible inputs, and certify it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..domain.errors import ModelError
from ..domain.model_card import ModelCard
from ..domain.parity import (
    LARGEST_PROBABILITY_DIFFERENCE,
    LEAST_LABEL_AGREEMENT,
    SAMPLES_PER_INPUT,
    Certificate,
    Parity,
    ProbeInput,
    RuntimeParity,
    compare,
)
from ..domain.segmentation import Scores
from ..ports.model import Model, ModelFiles
from ..ports.progress import ProgressListener
from ..ports.runtime import InferenceRuntime, NetworkShape, RuntimeOpener, RuntimeOptions
from .runtimes import LoadedModel

_SMALLEST_EDGE = 16
# Batch size, and by how many divisors each edge exceeds the smallest.
_PROBES = ((1, (0, 1, 0)), (2, (1, 0, 2)), (3, (0, 0, 0)), (1, (3, 2, 1)))


@dataclass(frozen=True)
class Verification:
    """What was compared, and whether it holds."""

    entry: RuntimeParity
    against: str
    probes: tuple[ProbeInput, ...]


def probe_inputs(card: ModelCard, network: NetworkShape) -> tuple[ProbeInput, ...]:
    """Inputs of several odd shapes and batch sizes, in the network's axes; fixed sizes are kept."""
    divisor = card.tiling.divisor
    least = -(-_SMALLEST_EDGE // divisor)
    probes: list[ProbeInput] = []
    for seed, (batch, extra) in enumerate(_PROBES):
        edges = [(least + more) * divisor for more in extra]
        if card.input.axes == "ZYX":
            edges.reverse()
        x, y, z = (only or edge for only, edge in zip(network[2:], edges, strict=True))
        shape = (network[0] or batch, len(card.input.channels), x, y, z)
        if shape not in [probe.shape for probe in probes]:
            probes.append(ProbeInput(shape, seed))
    return tuple(probes)


def verify_against(
    model: Model,
    runtime: InferenceRuntime,
    source: InferenceRuntime,
    progress: ProgressListener,
) -> Verification:
    """Compare a runtime with the source network.

    Raises:
        ModelError: they differ; says by how much and where.
    """
    probes = probe_inputs(model.card, runtime.input_shape)
    progress.stage("compare", 2 * len(probes))
    expected = _scores(source, probes, progress)
    found = _scores(runtime, probes, progress)
    output = model.card.output
    for scores in expected:
        output.check_channels(scores.shape[1])
    _check_shapes(model, expected, found)
    parity = compare(expected, found, output)
    sampled = tuple(
        replace(probe, probabilities=probe.sampled(scores, output))
        for probe, scores in zip(probes, expected, strict=True)
    )
    if not parity.holds:
        raise _differs(model, runtime, parity, _where(expected, found, model.card))
    return Verification(_entry(runtime, parity), f"{source.name} {source.version}", sampled)


def verify_again(model: Model, runtime: InferenceRuntime, progress: ProgressListener) -> Verification:
    """Compare a runtime with the probabilities of the source network that the certificate holds.

    Label agreement and Dice are those of the certificate's proof: the samples show probabilities only.

    Raises:
        ModelError: the model has no certificate, or one without samples, or the runtime differs.
    """
    certificate = model.card.parity
    if certificate is None or not _can_be_checked(certificate):
        raise ModelError(
            model.path.name,
            expected="a parity certificate to check again",
            got="none" if certificate is None else "one that holds nothing to compare with",
            do="prove it with voxport verify MODEL --against CHECKPOINT",
        )
    progress.stage("compare", len(certificate.probes))
    found = _scores(runtime, certificate.probes, progress)
    output = model.card.output
    largest = 0.0
    for probe, scores in zip(certificate.probes, found, strict=True):
        output.check_channels(scores.shape[1])
        difference = np.subtract(probe.sampled(scores, output), probe.probabilities)
        largest = float(np.maximum(largest, np.abs(difference).max()))  # keeps a NaN, as max would not
    if not largest <= LARGEST_PROBABILITY_DIFFERENCE:
        raise _differs(model, runtime, Parity(0.0, (), largest), "at the certificate's sample voxels")
    proved = next(
        (r.parity for r in certificate.runtimes if (r.runtime, r.precision) == (runtime.name, runtime.precision)),
        certificate.runtimes[0].parity,
    )
    parity = replace(proved, max_probability_difference=largest)
    return Verification(_entry(runtime, parity), f"the certificate of {certificate.date}", certificate.probes)


def certified(model: Model, verification: Verification) -> ModelCard:
    """The model's card with what was just proved against its source in the certificate."""
    today = datetime.now(UTC).date().isoformat()
    old = model.card.parity
    kept = old.runtimes if old is not None and old.weights_sha256 == model.weights_sha256 else ()
    certificate = Certificate(model.weights_sha256, today, verification.probes, kept)
    return model.card.with_parity(certificate.with_runtime(verification.entry, today))


def verify(
    loaded: LoadedModel,
    checkpoint: Path | None,
    progress: ProgressListener,
    *,
    open_source: RuntimeOpener,
    files: ModelFiles,
) -> Verification:
    """Compare a model with the checkpoint that it was exported from, and write the certificate into it.

    Without a checkpoint, compare it with what its certificate holds of the source network; nothing is written.

    Raises:
        ModelError: they differ, or the checkpoint does not fit the network in the card's provenance.
        OutputError: the model file cannot be written.
    """
    model, runtime = loaded.model, loaded.runtime
    if checkpoint is None:
        return verify_again(model, runtime, progress)
    source_model = Model(checkpoint, model.card, "", "", "checkpoint")
    source = open_source(source_model, RuntimeOptions())
    try:
        proved = verify_against(model, runtime, source, progress)
    finally:
        source.close()
    files.write(model.path, certified(model, proved), model.path)
    return proved


def _entry(runtime: InferenceRuntime, parity: Parity) -> RuntimeParity:
    return RuntimeParity(runtime.name, runtime.precision, runtime.version, parity)


def _scores(runtime: InferenceRuntime, probes: Sequence[ProbeInput], progress: ProgressListener) -> list[Scores]:
    scores = []
    for probe in probes:
        scores.append(runtime.score(probe.array()))
        progress.advance(1)
    return scores


def _check_shapes(model: Model, expected: Sequence[Scores], found: Sequence[Scores]) -> None:
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise ModelError(
                model.path.name,
                expected=f"scores of the source network's shape {one.shape}",
                got=f"{other.shape}",
                do="compare it with the checkpoint that it was exported from",
            )


def _can_be_checked(certificate: Certificate) -> bool:
    samples = {len(probe.probabilities) for probe in certificate.probes}
    return bool(certificate.runtimes) and samples == {SAMPLES_PER_INPUT}


def _where(expected: Sequence[Scores], found: Sequence[Scores], card: ModelCard) -> str:
    """The voxel at which probabilities differ most."""
    worst, place = -1.0, ""
    for one, other in zip(expected, found, strict=True):
        for case, (a, b) in enumerate(zip(one, other, strict=True)):
            difference = np.abs(card.output.probabilities(a) - card.output.probabilities(b))
            difference[np.isnan(difference)] = np.inf  # a NaN is the worst there is
            at = np.unravel_index(int(np.argmax(difference)), difference.shape)
            if difference[at] > worst:
                worst = float(difference[at])
                place = f"channel {at[0]}, voxel {tuple(int(i) for i in at[1:])} of case {case} in {one.shape}"
    return f"most at {place}"


def _differs(model: Model, runtime: InferenceRuntime, parity: Parity, where: str) -> ModelError:
    agreement = f"label agreement {parity.label_agreement:.6f} and " if parity.dice else ""
    return ModelError(
        model.path.name,
        expected=f"the source network's labels (agreement >= {LEAST_LABEL_AGREEMENT}) "
        f"and probabilities (within {LARGEST_PROBABILITY_DIFFERENCE:g})",
        got=f"{agreement}a difference of {parity.max_probability_difference:.3g} "
        f"with {runtime.name} {runtime.precision}, {where}",
        do="do not use it; export again from the right checkpoint",
    )
