"""Patches of noise through a network: whether it keeps to its card, and whether two runtimes give the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError
from ...domain.labels.label_map import Logits, Output
from ...domain.parity import Parity, ProbeInput, RuntimeParity, compare
from ...ports.model import Model
from ...ports.progress import ProgressListener
from ...ports.runtime import InferenceRuntime, NetworkShape

_WHOLE_AXIS = 32  # voxels along an axis that the network takes whole
_LEAST_EDGE = 16
# of the spread of the logits: the same input gives the same bits on most devices, and rounds otherwise
_REPEATS_WITHIN = 1e-3
# Batch size, and the divisors by which each edge exceeds the smallest.
_PROBES = ((1, (0, 1, 0)), (2, (1, 0, 2)), (3, (0, 0, 0)), (1, (3, 2, 1)))


def checked_model(model: Model, runtime: InferenceRuntime, *, twice: bool = False) -> Model:
    """The model, with its card's output fitted to the network's channels.

    ``twice``: also check that the network gives the same logits twice.

    Raises:
        ModelError: the network fails on a patch, gives something else than logits on the patch's grid, other channels
            than the card says, probabilities or labels where the card says logits, or answers differently each time.
    """
    patch, logits = _inferred(model.card, runtime)
    if logits.ndim != 5 or (logits.shape[0], *logits.shape[2:]) != (patch.shape[0], *patch.shape[2:]):
        raise ModelError(
            model.path.name,
            expected=f"logits on the patch's grid, ({patch.shape[0]}, K, {', '.join(map(str, patch.shape[2:]))})",
            got=str(logits.shape),
            do="export the network with padded convolutions and one output channel for each label",
        )
    if twice:
        check_repeats(runtime, patch, logits, model.path.name)
    logits = model.card.output.channelled(logits)
    output = model.card.output.fitted(logits.shape[1])
    output.check_logits(logits)
    return replace(model, card=replace(model.card, output=output))


def check_repeats(runtime: InferenceRuntime, batch: NDArray[np.float32], logits: Logits, subject: str) -> None:
    """Raise ModelError where a network gives other logits for the same batch."""
    again = runtime.infer(batch)
    difference = float(np.abs(again - logits).max())
    if difference > _REPEATS_WITHIN * float(np.ptp(logits)):
        raise ModelError(
            subject,
            expected="a network that gives the same logits for the same input each time",
            got=f"logits that differ by {difference:.3g}",
            do="export it in evaluation mode, without dropout: network.eval()",
        )


def _inferred(card: ModelCard, runtime: InferenceRuntime) -> tuple[NDArray[np.float32], Logits]:
    """A patch of noise and its logits: a small one, or the card's where the network does not take that."""
    small, whole = (_shape(card, runtime, small=small) for small in (True, False))
    try:
        return _infer_noise(small, runtime)
    except ModelError:
        if small == whole:
            raise
    return _infer_noise(whole, runtime)


def _infer_noise(shape: tuple[int, ...], runtime: InferenceRuntime) -> tuple[NDArray[np.float32], Logits]:
    patch = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    return patch, runtime.infer(patch)


def _shape(card: ModelCard, runtime: InferenceRuntime, *, small: bool) -> tuple[int, ...]:
    """Shape in the network's axes, with the edges of the card's patch or of two divisors at least."""
    least = [divisor * max(2, -(-_LEAST_EDGE // divisor)) for divisor in card.tiling.divisors]
    whole = zip(card.tiling.patch, card.tiling.rounded([_WHOLE_AXIS] * 3), strict=True)
    patch = least if small else [edge or rounded for edge, rounded in whole]
    wanted = (1, len(card.input.channels), *card.input.in_network_order(patch))
    return tuple(only or edge for only, edge in zip(runtime.input_shape, wanted, strict=True))


def compare_runtimes(model: Model, runtime: InferenceRuntime, reference: InferenceRuntime) -> RuntimeParity:
    """Compare a runtime with another that has the same model, on the certificate's probes or its own.

    Raises:
        ModelError: one of them fails, or gives another shape.
    """
    certificate, output = model.card.parity, model.card.output
    probes = certificate.probes if certificate is not None else ()
    probes = probes or probe_inputs(model.card, reference.input_shape)
    expected, found = (infer_probes(each, probes, output) for each in (reference, runtime))
    check_shapes(model, expected, found)
    return parity_of(runtime, compare(expected, found, output.fitted(expected[0].shape[1])))


def probe_inputs(card: ModelCard, network: NetworkShape) -> tuple[ProbeInput, ...]:
    """Return inputs of several odd shapes and batch sizes, in the network's axes; fixed sizes are kept."""
    probes: list[ProbeInput] = []
    divisors = card.tiling.divisors
    for seed, (batch, extra) in enumerate(_PROBES):
        # An edge of one divisor has one voxel at the deepest level, without instance statistics.
        edges = ((max(2, -(-_LEAST_EDGE // d)) + more) * d for d, more in zip(divisors, extra, strict=True))
        wanted = zip(network[2:], card.input.in_network_order(edges), strict=True)
        x, y, z = (only or edge for only, edge in wanted)
        shape = (network[0] or batch, len(card.input.channels), x, y, z)
        if shape not in [probe.shape for probe in probes]:
            probes.append(ProbeInput(shape, seed))
    return tuple(probes)


def parity_of(runtime: InferenceRuntime, parity: Parity) -> RuntimeParity:
    """Return the parity of a runtime under its name, precision and version."""
    return RuntimeParity(runtime.name, runtime.precision, runtime.version, parity)


def infer_probes(
    runtime: InferenceRuntime, probes: Sequence[ProbeInput], output: Output, progress: ProgressListener | None = None
) -> list[Logits]:
    """Return the logits of each probe."""
    logits = []
    for probe in probes:
        logits.append(output.channelled(runtime.infer(probe.array())))
        if progress is not None:
            progress.advance(1)
    return logits


def check_shapes(model: Model, expected: Sequence[Logits], found: Sequence[Logits]) -> None:
    """ModelError where logits have another shape than the source network's."""
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise ModelError(
                model.path.name,
                expected=f"scores of the source network's shape {one.shape}",
                got=f"{other.shape}",
                do="compare it with the checkpoint that it was exported from",
            )
