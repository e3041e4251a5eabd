"""Compare two runtimes of a model on reproducible inputs."""

from __future__ import annotations

from collections.abc import Sequence

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError
from ...domain.labels.label_map import Logits, Output
from ...domain.parity import Parity, ProbeInput, RuntimeParity, compare
from ...ports.model import Model
from ...ports.progress import ProgressListener
from ...ports.runtime import InferenceRuntime, NetworkShape

_SMALLEST_EDGE = 16
# Batch size, and the divisors by which each edge exceeds the smallest.
_PROBES = ((1, (0, 1, 0)), (2, (1, 0, 2)), (3, (0, 0, 0)), (1, (3, 2, 1)))


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
        edges = ((max(2, -(-_SMALLEST_EDGE // d)) + more) * d for d, more in zip(divisors, extra, strict=True))
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
