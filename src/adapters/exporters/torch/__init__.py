"""Export of PyTorch networks to ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ....domain.cards.model_card import ModelCard
from ....domain.errors import ModelError, UsageError
from ....domain.geometry.grid import Shape3
from ....domain.plain import first_line
from ....ports.exporter import Checkpoint, Exported
from ...disk import sha256
from .graph import OPSET, Shape5, check_against, write_graph

if TYPE_CHECKING:
    import torch

__all__ = ["TorchExporter"]

# Minimum edge of the traced example, for the kernels of networks without a divisor.
_LEAST_EDGE = 16
_LOGGERS = ("torch", "onnxscript", "onnx_ir")
_PACKAGES = ("torch", "monai", "onnx", "onnxscript")
_NNUNET_NETWORKS = "dynamic_network_architectures"
# SwinUNETR works with dynamic axes, but its export takes 7 minutes.
_SLOW_DYNAMIC = frozenset({"SwinUNETR"})


class TorchExporter:
    """Exports with ``torch.export``; TorchScript files with torch's older, tracing exporter.

    Args:
        load_network: loads the network of a checkpoint and its description, in eval mode on the CPU, with one input
            ``(N, C, ., ., .)`` and one output ``(N, K, ., ., .)``. Raises ModelError.
    """

    def __init__(self, load_network: Callable[[Path, Mapping[str, Any]], torch.nn.Module]) -> None:
        self._load_network = load_network

    def export(self, checkpoint: Checkpoint, card: ModelCard, destination: Path) -> Exported:
        """Write the network as ONNX: ``image`` (N, C, ., ., .) to ``scores`` (N, K, ., ., .), fp32, opset 20.

        Spatial axes are dynamic in multiples of the card's divisor. If that fails, or logits differ at another size,
        they are fixed at the card's patch and only N is dynamic. Weights that are exact in float16 are stored in it.
        Output is suppressed, also that of other threads.

        Raises:
            ModelError: the checkpoint is invalid, does not fit the network or card, or cannot be exported; also a
                network without dynamic axes for a null patch axis.
            UsageError: the extra ``torch`` is not installed.
        """
        _check_installed()
        network = self._load_network(checkpoint.path, checkpoint.network)
        with TemporaryDirectory(dir=destination.parent, prefix=".export-") as folder:
            draft = Path(folder) / "draft.onnx"
            with _quiet():
                dynamic = _export(network, checkpoint, card, draft)
            draft.replace(destination)
        notes = tuple(getattr(network, "notes", ()))
        return Exported(destination, dynamic, _provenance(checkpoint, dynamic), notes)


def _export(network: torch.nn.Module, checkpoint: Checkpoint, card: ModelCard, draft: Path) -> bool:
    """Export; return whether the axes are dynamic."""
    patch = _patch(card)
    remedy = "correct the card's channels, patch and divisor, or the network's arguments"
    if "_target_" not in checkpoint.network:
        remedy = "correct the card's channels, patch and divisor, or name the network that the TorchScript file is of"
    failure = "it is known not to export in a sensible time"
    if patch is None or not any(type(module).__name__ in _SLOW_DYNAMIC for module in network.modules()):
        sizes = _sizes(card, 2, (2, 3, 4)), _sizes(card, 1, (3, 4, 2))
        failure = _attempt(network, *sizes, draft, card.input.in_network_order(card.tiling.divisors))
        if not failure:
            return True
    expected = "a network that exports at any size, as the card's patch has an open edge"
    if patch is not None:
        failure = _attempt(network, (2, *patch), (1, *patch), draft, None)
        if not failure:
            return False
        expected = f"a network that exports with inputs {(1, *patch)}"
    raise ModelError(checkpoint.path.name, expected=expected, got=failure, do=remedy)


def _attempt(network: torch.nn.Module, example: Shape5, another: Shape5, draft: Path, divisors: Shape3 | None) -> str:
    """Export with an example and compare at another size; return the error, empty without one."""
    try:
        write_graph(network, example, draft, divisors=divisors)
        check_against(network, another, draft, dynamic=divisors is not None)
    except Exception as error:  # noqa: BLE001 - torch, the network and ONNX Runtime raise many kinds
        cause: BaseException = error
        while cause.__cause__ is not None:  # exporters wrap it in long advice
            cause = cause.__cause__
        return first_line(cause)
    return ""


def _patch(card: ModelCard) -> tuple[int, int, int, int] | None:
    """Return ``(C, ., ., .)`` of the card's patch in the network's axes; None if an axis is null."""
    edges = tuple(edge for edge in card.tiling.patch if edge is not None)
    if len(edges) != 3:
        return None
    return len(card.input.channels), *card.input.in_network_order(edges)


def _sizes(card: ModelCard, cases: int, steps: tuple[int, int, int]) -> Shape5:
    """Return a batch shape with unequal edges, multiples of the divisor: divisor 8 and steps 2, 3, 4 -> 16, 24, 32."""
    divisors = card.input.in_network_order(card.tiling.divisors)
    x, y, z = (d * (step + max(0, -(-_LEAST_EDGE // d) - 2)) for d, step in zip(divisors, steps, strict=True))
    return cases, len(card.input.channels), x, y, z


def _check_installed() -> None:
    missing = [name for name in ("torch", "onnxscript") if _version(name) is None]
    if missing:
        raise UsageError.not_installed("export", " and ".join(missing), "torch")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _provenance(checkpoint: Checkpoint, dynamic: bool) -> dict[str, Any]:
    folder = checkpoint.path.parent
    source: dict[str, Any] = {"file": checkpoint.path.name, "sha256": sha256(checkpoint.path)}
    if names := checkpoint.network.get("_members_"):
        source["members"] = [{"file": name, "sha256": sha256(folder / name)} for name in names]
    of_nnunet = str(checkpoint.network.get("_target_")).startswith(f"{_NNUNET_NETWORKS}.")
    packages = (*_PACKAGES, _NNUNET_NETWORKS) if of_nnunet else _PACKAGES
    return {
        "source": source,
        "network": dict(checkpoint.network),
        "versions": {name: found for name in packages if (found := _version(name)) is not None},
        "opset": OPSET,
        "dynamic": dynamic,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress output, warnings and logs of torch and onnxscript in the whole process."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS]
        # New loggers propagate to these three, which do not propagate.
        for logger in map(logging.getLogger, {*known, *_LOGGERS}):
            stack.callback(_restore, logger, list(logger.handlers), logger.propagate)
            logger.handlers = [logging.NullHandler()]
            logger.propagate = logger.name not in _LOGGERS
        yield


def _restore(logger: logging.Logger, handlers: list[logging.Handler], propagate: bool) -> None:
    logger.handlers = handlers
    logger.propagate = propagate
