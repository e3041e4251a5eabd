"""The network of a configuration, as a description for the loader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ....domain.errors import ModelError
from .plans import Plans, wrong

_PACKAGE = "dynamic_network_architectures"
_UNETS = f"{_PACKAGE}.architectures.unet"
_ALLOWED = ("torch.nn.", f"{_PACKAGE}.")
# nnU-Net plans at most 8 stages of 512 features. A network far larger would be built before its weights are missed.
_MOST_STAGES, _LARGEST_NUMBER = 16, 2048
# Networks that halve their input by strides, which is what the divisor is computed from.
_KNOWN = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")


def describe_network(plans: Plans, trainer: str, outputs: int) -> dict[str, Any]:
    """Return the network's class and arguments.

    Args:
        plans: the configuration.
        trainer: name of nnU-Net's trainer class.
        outputs: number of output channels.

    Raises:
        ModelError: an architecture that is not known, or a class outside of torch.nn and
            dynamic_network_architectures.
    """
    architecture = plans.values.get("architecture", None)
    if architecture is None:
        architecture = _old_architecture(plans)
    if not isinstance(architecture, Mapping):
        raise wrong("architecture", "the network's class and arguments", architecture)
    arguments, classes = architecture.get("arch_kwargs"), architecture.get("_kw_requires_import", [])
    if not isinstance(arguments, Mapping):
        raise wrong("arch_kwargs", "the network's arguments", arguments)
    if not isinstance(classes, list) or not all(isinstance(key, str) for key in classes):
        raise wrong("_kw_requires_import", "names of arguments", classes)
    described = {key: _plain(key, value) for key, value in arguments.items()}
    if trainer == "nnUNetTrainerBN":
        described["norm_op"] = f"torch.nn.BatchNorm{len(plans.patch)}d"
        described["norm_op_kwargs"] = {"eps": 1e-5, "affine": True}
    for key in classes:
        if described.get(key) is not None:
            described[key] = {"_class_": _allowed(key, described[key])}
    name = _allowed("network_class_name", architecture.get("network_class_name")).rpartition(".")[2]
    if name not in _KNOWN:
        raise wrong("network_class_name", f"{', '.join(_KNOWN[:-1])} or {_KNOWN[-1]}", name)
    network = {
        "_target_": f"{_UNETS}.{name}",
        "input_channels": len(plans.channels),
        "num_classes": outputs,
        **described,
        "deep_supervision": False,
    }
    if plans.flat:
        network["_slices_"] = "x"
    if plans.transpose not in ((0, 1, 2), (2, 1, 0)):
        network["_transpose_"] = list(plans.transpose)
    return network


def divisor(plans: Plans, network: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the product of the strides along each axis of the network."""
    strides = network.get("strides")
    try:
        steps = [[int(step) for step in stage] for stage in strides or ()]
        total = tuple(math.prod(along) for along in zip(*steps, strict=True))
    except (TypeError, ValueError):
        total = ()
    if len(total) != len(plans.patch) or min(total) < 1:
        raise wrong("strides", f"{len(plans.patch)} positive numbers a stage", strides)
    return total


def _plain(key: str, value: Any) -> Any:
    """Return a value of JSON, unless it holds a name with a meaning for the loader."""
    if isinstance(value, Mapping):
        if any(str(inner).startswith("_") for inner in value):
            raise wrong(key, "plain values", value)
        return {inner: _plain(key, each) for inner, each in value.items()}
    if key.startswith("_"):
        raise wrong("arch_kwargs", "arguments of the network", key)
    if isinstance(value, int | float) and abs(value) > _LARGEST_NUMBER:
        raise wrong(key, f"numbers up to {_LARGEST_NUMBER}", value)
    if isinstance(value, list) and len(value) > _MOST_STAGES:
        raise wrong(key, f"at most {_MOST_STAGES} stages", f"{len(value)} values")
    return [_plain(key, each) for each in value] if isinstance(value, list) else value


def _allowed(key: str, name: object) -> str:
    if not isinstance(name, str) or not name.startswith(_ALLOWED):
        raise ModelError(
            key,
            expected=f"a class of torch.nn or {_PACKAGE}",
            got=f"{name}, which is not imported",
            do="train with a network of nnU-Net, or export the checkpoint with its own class",
        )
    return name


def _old_architecture(plans: Plans) -> Mapping[str, Any]:
    """Return the architecture of plans that were written before nnU-Net 2.5."""
    values, dimension = plans.values, len(plans.patch)
    name = values.get("UNet_class_name")
    if name not in _KNOWN[:2]:
        raise wrong("UNet_class_name", " or ".join(_KNOWN[:2]), name)
    try:
        stages = len(values["n_conv_per_stage_encoder"])
        base, most = values["UNet_base_num_features"], values["unet_max_num_features"]
        blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
        arguments = {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": values["conv_kernel_sizes"],
            "strides": values["pool_op_kernel_sizes"],
            blocks: values["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": values["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except (KeyError, TypeError) as error:
        raise wrong("plans.json", "the keys of nnU-Net's older plans", error) from None
    classes = ["conv_op", "norm_op", "nonlin"]
    return {"network_class_name": f"{_UNETS}.{name}", "arch_kwargs": arguments, "_kw_requires_import": classes}
