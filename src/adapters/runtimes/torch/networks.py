"""Networks from their description: ``_target_`` and arguments, with the weights of a checkpoint put in."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....domain.errors import ModelError, UsageError
from .checkpoints import StateDict, first_line, is_torchscript, read_state_dict, read_torchscript

if TYPE_CHECKING:
    import torch

# What foreign network code raises on arguments or inputs that it cannot take.
NETWORK_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
_SHOWN = 3


def load_network(path: Path, network: Mapping[str, Any]) -> torch.nn.Module:
    """A network in eval mode on the CPU, of a state dict and its description, or of a TorchScript file.

    It takes images ``(N, C, ., ., .)`` and gives scores ``(N, K, ., ., .)``. A network that gives several tensors
    gives its first, which is the full resolution of deep supervision.

    Args:
        path: the checkpoint.
        network: ``_target_``, a class of ``monai.networks.nets`` or ``package.module.Class`` of an installed package,
            and the arguments of the class; empty for a TorchScript file to run as it is. Where it is given with
            one, the network takes the file's weights.

    Raises:
        ModelError: the file cannot be read, the network cannot be built, or the weights are another network's.
        UsageError: torch or monai is not installed.
    """
    _check_torch()
    script = read_torchscript(path) if is_torchscript(path) else None
    if script is not None and not network:
        return script
    if not network:
        raise ModelError(
            path.name,
            expected="a network to put the weights in",
            got="none",
            do="name its `network`, e.g. SegResNet, and `network_args`, e.g. '{\"init_filters\": 8}'",
        )
    weights = read_state_dict(path) if script is None else dict(script.state_dict())
    built = _build(network)
    _put_in(built, weights, path, str(network["_target_"]))
    return _single_output(built.eval())


def _check_torch() -> None:
    try:
        importlib.import_module("torch")
    except ImportError:
        raise UsageError(
            "torch runtime", expected="PyTorch", got="none installed", do="pip install 'voxport[torch]'"
        ) from None


def _build(network: Mapping[str, Any]) -> torch.nn.Module:
    found = _find(network.get("_target_"))
    arguments = {key: value for key, value in network.items() if key not in ("_target_", "_desc_")}
    if arguments.get("pretrained"):
        raise ModelError(
            "network",
            expected="weights from the checkpoint only",
            got=f"pretrained={arguments['pretrained']!r}, which downloads others",
            do="leave pretrained out",
        )
    try:
        return found(**arguments)
    except NETWORK_FAILURES as error:
        raise ModelError(
            f"network {found.__name__}",
            expected="arguments that it takes",
            got=first_line(error),
            do="correct the network's arguments",
        ) from None


def _find(target: object) -> type[torch.nn.Module]:
    """The class that ``_target_`` names. Its module is imported, so only what is installed here can run."""
    import torch

    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise _no_such_network(target, "something else")
    module, _, name = target.rpartition(".")
    module = module or "monai.networks.nets"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        if module == "monai.networks.nets" and error.name == "monai":
            raise UsageError(
                f"network {name}", expected="MONAI", got="none installed", do="pip install 'voxport[torch]'"
            ) from None
        raise _no_such_network(target, first_line(error)) from None
    if found is None:
        raise _no_such_network(target, f"no {name} in {module}")
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise _no_such_network(target, f"{target}, which is none")
    return found


def _no_such_network(target: object, got: str) -> ModelError:
    return ModelError(
        f"network {target}",
        expected="a class of monai.networks.nets, or package.module.Class of a torch.nn.Module",
        got=got,
        do="correct _target_",
    )


def _put_in(network: torch.nn.Module, weights: StateDict, path: Path, target: str) -> None:
    own = network.state_dict()
    differences = {
        "missing": [key for key in own if key not in weights],
        "unexpected": [key for key in weights if key not in own],
        "other shapes": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ],
    }
    found = [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in differences.items() if keys]
    if found:
        raise ModelError(
            path.name,
            expected=f"the {len(own)} weights of {target} with the arguments given",
            got="; ".join(found),
            do="correct the network or its arguments",
        )
    network.load_state_dict(weights)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _single_output(network: torch.nn.Module) -> torch.nn.Module:
    import torch

    class FirstOutput(torch.nn.Module):
        """The network with one output: its only tensor, or the first of several."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.in_channels = getattr(network, "in_channels", None)

        def forward(self, image: torch.Tensor) -> Any:
            output = self.network(image)
            while isinstance(output, (list, tuple, Mapping)) and len(output):
                output = next(iter(output.values())) if isinstance(output, Mapping) else output[0]
            return output

    return FirstOutput().eval()
