"""Networks from a description (``_target_`` and arguments) and the weights of a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....domain.errors import ModelError, UsageError
from ....domain.plain import first_line
from .checkpoints import Weights, is_torchscript, read_torchscript, read_weights
from .wrappers import mean_of, one_output, slice_by_slice, with_axes

if TYPE_CHECKING:
    import torch

# Errors of network code for invalid arguments or inputs.
NETWORK_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
_SHOWN = 3
# Keys of a description that are not arguments of the class.
_WRAPPING = frozenset({"_slices_", "_transpose_", "_members_"})
_OWN_KEYS = frozenset({"_target_", "_desc_", "_output_"})
# Packages whose classes an argument may be.
_NNUNET_NETWORKS = "dynamic_network_architectures"
_CLASS_PREFIXES = ("torch.nn.", f"{_NNUNET_NETWORKS}.")


def load_network(path: Path, network: Mapping[str, Any]) -> torch.nn.Module:
    """Load a network from a checkpoint and its description, or from a TorchScript file, in eval mode on the CPU.

    It maps images ``(N, C, ., ., .)`` to logits ``(N, K, ., ., .)``. Its ``notes`` state renamed and unused weights.

    Args:
        path: the checkpoint.
        network: ``_target_``, a class of ``monai.networks.nets`` or ``package.module.Class`` of an installed package,
            and the arguments of the class. Without it, a TorchScript file runs as it is; with it, the network takes
            the file's weights. ``_output_`` selects one of several outputs, see ``one_output``. ``_slices_`` applies
            a 2-D network slice by slice, see ``slice_by_slice``, then ``_transpose_`` reorders axes, see ``with_axes``.
            ``_members_`` are further checkpoints of the same network, relative to the folder of ``path``: the logits
            are the mean over all. An argument ``{"_class_": "torch.nn.Conv3d"}`` is a class.

    Raises:
        ModelError: the file cannot be read, the network cannot be built, or the weights do not fit it.
        UsageError: torch, monai or safetensors is not installed.
    """
    _check_torch()
    alone = {key: value for key, value in network.items() if key not in _WRAPPING}
    members = [_load_one(each, alone) for each in (path, *member_paths(path, network))]
    loaded = mean_of(members) if len(members) > 1 else members[0]
    for key, wrap in (("_slices_", slice_by_slice), ("_transpose_", with_axes)):
        loaded = loaded if network.get(key) is None else wrap(loaded, network[key])
    return loaded


def member_paths(path: Path, network: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the paths of the further checkpoints in a network's description. Raises ModelError for no list."""
    names = network.get("_members_", [])
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ModelError("network", expected="_members_ to list files", got=str(names), do="correct _members_")
    return tuple(path.parent / name for name in names)


def _load_one(path: Path, network: Mapping[str, Any]) -> torch.nn.Module:
    script = read_torchscript(path) if is_torchscript(path) else None
    output = network.get("_output_")
    if "_target_" not in network:
        if script is not None and len(network) <= ("_output_" in network):
            plain = output is None and str(script.forward.schema.returns[0].type) == "Tensor"  # type: ignore[attr-defined]
            return script if plain else one_output(script, output)
        raise ModelError(
            path.name,
            expected="a network to put the weights in",
            got="none",
            do="name its `network`, e.g. SegResNet, and `network_args`, e.g. '{\"init_filters\": 8}', or both in the "
            "card: provenance: {network: {_target_: SegResNet, init_filters: 8}}",
        )
    weights = read_weights(path) if script is None else Weights(dict(script.state_dict()))
    built = build_network(network)
    notes = _put_in(built, weights, path, str(network["_target_"]))
    return one_output(built.eval(), output, notes)


def _check_torch() -> None:
    try:
        importlib.import_module("torch")
    except ImportError:
        raise UsageError.not_installed("torch runtime", "PyTorch", "torch") from None


def build_network(network: Mapping[str, Any]) -> torch.nn.Module:
    """Return a network with random weights, from its ``_target_`` and arguments as in `load_network`.

    Raises:
        ModelError: there is no such class, or it does not take the arguments.
    """
    found = _find(network.get("_target_"))
    arguments = {key: _argument(value) for key, value in network.items() if key not in _OWN_KEYS}
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


def _argument(value: Any) -> Any:
    """Return an argument of a network with each ``{"_class_": NAME}`` replaced by the class."""
    if isinstance(value, Mapping):
        if set(value) == {"_class_"}:
            return _find_class(value["_class_"])
        return {key: _argument(part) for key, part in value.items()}
    return [_argument(part) for part in value] if isinstance(value, list | tuple) else value


def _find_class(name: object) -> type:
    text = name if isinstance(name, str) else ""
    allowed = text.startswith(_CLASS_PREFIXES)
    try:
        module, _, last = text.rpartition(".")
        found = getattr(importlib.import_module(module), last, None) if allowed else None
    except ImportError:
        found = None
    # a module also holds classes of others
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(_CLASS_PREFIXES):
        raise ModelError(
            "network",
            expected="_class_ to be a class of torch.nn or dynamic_network_architectures",
            got=str(name),
            do="correct the network's arguments, or install the package",
        )
    return found


def _find(target: object) -> type[torch.nn.Module]:
    """Return the class named by ``_target_``. Imports its module, so only installed code can run."""
    import torch

    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise _no_such_network(target, "something else")
    module, _, name = target.rpartition(".")
    module = module or "monai.networks.nets"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        if module == "monai.networks.nets" and error.name == "monai":
            raise UsageError.not_installed(f"network {name}", "MONAI", "torch") from None
        if error.name == _NNUNET_NETWORKS:
            raise UsageError.not_installed(f"network {name}", f"the package {error.name}", "nnunet") from None
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


def _put_in(network: torch.nn.Module, weights: Weights, path: Path, target: str) -> tuple[str, ...]:
    """Load the weights; return notes on names that were changed or unused."""
    own = network.state_dict()
    prefix = _prefix(weights, own, path, target)
    taken = {key.removeprefix(prefix): value for key, value in weights.tensors.items() if key.startswith(prefix)}
    others = [key for key in weights.tensors if not key.startswith(prefix)]
    differences = {
        # num_batches_tracked is not used in inference
        "missing": [key for key in own if key not in taken and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in taken if key not in own],
        "other shapes": [
            f"{key} {tuple(taken[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in taken and taken[key].shape != own[key].shape
        ],
    }
    parts = {key.split(".")[0] for key in own}
    if list(filter(None, differences.values())) == [differences["unexpected"]] and parts.isdisjoint(
        key.split(".")[0] for key in differences["unexpected"]
    ):  # e.g. a loss's, beside a whole network
        others += [prefix + key for key in differences.pop("unexpected")]
        taken = {key: value for key, value in taken.items() if key in own}
    found = [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in differences.items() if keys]
    if found:
        raise ModelError(
            path.name,
            expected=f"the {len(own)} weights of {target} with the arguments given",
            got="; ".join(found),
            do="correct the network or its arguments",
        )
    network.load_state_dict({**own, **taken})
    notes = [f"weights under {weights.found}"] if weights.found else []
    notes += [f"prefix {prefix} removed"] if prefix else []
    notes += [f"{len(others)} other tensors left out ({_some(others)})"] if others else []
    return (f"{path.name}: {', '.join(notes)}",) if notes else ()


def _prefix(weights: Weights, own: Mapping[str, Any], path: Path, target: str) -> str:
    """Return the prefix of the network's names in the checkpoint: the one that matches most of them.

    Raises:
        ModelError: several prefixes match the whole network, with different values.
    """
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    keys = weights.tensors
    prefixes = {""} | {key[: -len(name)] for key in keys for name in _endings(key) if name in needed}
    matched = {prefix: sum(prefix + name in keys for name in needed) for prefix in prefixes}
    shortest_first = sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
    whole = [prefix for prefix in shortest_first if needed and matched[prefix] == len(needed)]
    for other in whole[1:]:
        if any(not keys[whole[0] + name].equal(keys[other + name]) for name in needed):
            raise ModelError(
                path.name,
                expected=f"the weights of one {target}",
                got=f"{len(whole)} sets of them, with the prefixes {', '.join(map(repr, whole))}",
                do="where the network was trained, save one of them: torch.save(network.state_dict(), path)",
            )
    return max(shortest_first, key=lambda prefix: matched[prefix])


def _endings(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
