"""Inference with PyTorch: a state dict with its network's description, or a TorchScript file."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import ModelError, UsageError
from ....domain.plain import first_line
from ....ports.model import Model
from ....ports.runtime import NetworkShape, RuntimeOptions, check_batch
from ....ports.tensors import closed_network
from .checkpoints import read_content
from .networks import NETWORK_FAILURES, load_network

if TYPE_CHECKING:
    import torch

__all__ = ["TorchRuntime", "load_network", "open_torch_runtime", "read_content"]


def open_torch_runtime(
    model: Model, options: RuntimeOptions, device: str = "cpu", threads: int | None = None
) -> TorchRuntime:
    """Load the checkpoint at ``model.path``; ``provenance.network`` of its card describes the network.

    Args:
        model: a state dict or a TorchScript file, with a card.
        options: fp32 only.
        device: cpu, cuda, cuda:N, or auto: CUDA where there is one.
        threads: number of intra-operator threads where ``options.threads`` is None. Torch has one number for the
            whole process, which the network opened last sets; None does not change it.

    Raises:
        ModelError: the file or the network's description is invalid, or they do not belong together.
        UsageError: another precision than fp32, an unknown device, or torch is not installed.
    """
    if options.precision not in ("fp32", "auto"):
        raise UsageError("precision", expected="fp32 with the torch runtime", got=options.precision, do="leave it out")
    described = model.card.provenance.get("network") or {}
    if not isinstance(described, Mapping):
        raise ModelError(
            "provenance.network",
            expected="a mapping with _target_ and arguments",
            got=type(described).__name__,
            do="correct the model card",
        )
    network = load_network(model.path, described)
    import torch

    wanted = options.threads or threads
    if wanted and wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)
    place = _device(device)
    channels = described.get("in_channels", getattr(network, "in_channels", None))
    return TorchRuntime(
        network.to(place), place, channels if isinstance(channels, int) else len(model.card.input.channels)
    )


class TorchRuntime:
    """A loaded torch network. Calls run one at a time, because a forward pass uses all threads and may keep state.

    ``channels`` are the network's, or the card's if unknown.
    """

    name = "torch"
    precision = "fp32"

    def __init__(self, network: torch.nn.Module, device: torch.device, channels: int) -> None:
        import torch

        self.version = str(torch.__version__)
        self.device = str(device)
        self.input_shape: NetworkShape = (None, channels, None, None, None)
        self._network: torch.nn.Module | None = network
        self._turn = Lock()

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        check_batch(batch, self.input_shape, "batch")
        # A copy, because a network may work in place, and torch takes no read-only or negatively strided arrays.
        image = torch.from_numpy(np.array(batch, order="C", copy=True))
        with self._turn, torch.inference_mode():
            if self._network is None:
                raise closed_network("torch runtime")
            try:
                output: Any = self._network(image.to(self.device))
            except NETWORK_FAILURES as error:
                raise ModelError(
                    "network",
                    expected=f"to take a batch of shape {batch.shape}",
                    got=first_line(error),
                    do="check the card's channels, patch and divisor",
                ) from None
            return _logits(output, batch)

    def close(self) -> None:
        with self._turn:
            self._network = None


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError("device", expected="cpu, cuda, cuda:N or auto", got=name, do="name one of these")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise UsageError(
            "device",
            expected=f"one of the {torch.cuda.device_count()} CUDA devices that PyTorch finds here",
            got=name,
            do="use cpu, or install the driver and a CUDA build of PyTorch",
        )
    return torch.device("cuda", index)


def _logits(output: object, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    fits = (
        isinstance(output, torch.Tensor)
        and output.is_floating_point()
        and output.ndim == 5
        and output.shape[0] == batch.shape[0]
    )
    if not fits:
        got = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(
            "network output",
            expected=f"scores ({batch.shape[0]}, K, ., ., .)",
            got=got.removeprefix("torch."),
            do="use a network for 3-D segmentation that gives one tensor",
        )
    assert isinstance(output, torch.Tensor)
    return np.ascontiguousarray(output.float().cpu().numpy())
