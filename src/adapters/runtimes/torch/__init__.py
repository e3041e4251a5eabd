"""Inference with PyTorch: a state dict with its network's description, or a TorchScript file."""

from .networks import load_network
from .runtime import TorchRuntime, open_torch_runtime

__all__ = ["TorchRuntime", "load_network", "open_torch_runtime"]
