"""The network: a U-Net on 2x2 in-plane cells of voxels, without normalisation, so with a bounded field of view."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

Edges = tuple[int, int, int]
CELL = 2
DARK = 0.02
Widths = tuple[int, int, int, int]
WIDTHS: Widths = (16, 48, 80, 128)
DIVISOR = (16, 16, 1)
CONTEXT = (119, 119, 6)
"""Voxels on each side that a logit depends on.

In plane a level of cells of c voxels adds c for each of its 3 x 3 convolutions: 4·2 + 4·4 + 4·8 + 3·16 = 104, and a
voxel lies up to 15 voxels inside its largest cell. Along z six convolutions are three slices high.
"""


def _same(kernel: Edges) -> Edges:
    """Return the padding with which a convolution keeps the size."""
    x, y, z = kernel
    return x // 2, y // 2, z // 2


class StandardisedConv(nn.Conv3d):
    """A convolution whose weights have mean 0 and variance gain²/fan-in for each output channel.

    It keeps activations in range as a normalisation would (Qiao et al. 2019; Brock et al. 2021), and is an ordinary
    convolution once trained (`VesselNet.folded`).
    """

    def __init__(self, inputs: int, outputs: int, kernel: Edges, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs, kernel, padding=_same(kernel))
        self.gain = nn.Parameter(torch.full((outputs,), gain * math.sqrt(2.0)))

    def standardised(self) -> Tensor:
        """Return the weights that the convolution uses (O, I, KX, KY, KZ)."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3, 4), keepdim=True, unbiased=False)
        fan_in = self.weight[0].numel()
        scale = self.gain[:, None, None, None, None] * torch.rsqrt(variance * fan_in + 1e-6)
        return (self.weight - mean) * scale

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, I, X, Y, Z) to (N, O, X, Y, Z)."""
        return functional.conv3d(x, self.standardised(), self.bias, padding=self.padding)


FLAT, DEEP = (3, 3, 1), (3, 3, 3)


class Block(nn.Module):
    """relu(x + convolutions(x)), (N, C, X, Y, Z) to the same shape."""

    def __init__(self, channels: int, *kernels: Edges, standardised: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            StandardisedConv(channels, channels, kernel, gain=0.3 if kernel is kernels[-1] else 1.0)
            if standardised
            else nn.Conv3d(channels, channels, kernel, padding=_same(kernel))
            for kernel in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions find."""
        found = x
        for index, convolution in enumerate(self.convolutions):
            found = convolution(functional.relu(found) if index else found)
        return functional.relu(x + found)


class VesselNet(nn.Module):
    """Logits (N, 2, X, Y, Z) for images (N, 1, X, Y, Z) in 0..1; X and Y multiples of 16.

    The square root and the logarithm of the image are further input channels: the first keeps dim capillaries beside
    bright trunks, and in the second the contrast of a vessel does not depend on how far the light has faded. Cells of
    2, 4, 8 and 16 voxels in plane have `widths` channels; z is never halved, as slices are few and thick. A network
    is trained with `standardised` weights, and stored without.
    """

    def __init__(self, widths: Widths = WIDTHS, standardised: bool = False) -> None:
        super().__init__()
        self.widths = widths
        fine, middle, coarse, deepest = widths
        views, labels = 3, 2

        def block(channels: int, *kernels: Edges) -> Block:
            return Block(channels, *kernels, standardised=standardised)

        self.stem = nn.Conv3d(views * CELL**2, fine, FLAT, padding=(1, 1, 0))
        self.down = nn.ModuleList(_halving(*pair) for pair in pairwise(widths))
        self.encoders = nn.ModuleList(
            (block(middle, DEEP, FLAT), block(coarse, DEEP, FLAT), block(deepest, DEEP, FLAT, DEEP))
        )
        self.up = nn.ModuleList(_doubling(*pair) for pair in zip(widths[1:], widths, strict=False))
        self.decoders = nn.ModuleList((block(middle, FLAT, FLAT), block(coarse, DEEP, FLAT)))
        self.refine = block(fine, FLAT, DEEP)
        self.head = nn.Conv3d(fine, labels * CELL**2, FLAT, padding=(1, 1, 0))

    def forward(self, picture: Tensor) -> Tensor:
        """Logits of background and vessel (N, 2, X, Y, Z)."""
        fine = functional.relu(self.stem(fold(picture_views(picture), CELL)))
        middle = self.encoders[0](functional.relu(self.down[0](fine)))
        coarse = self.encoders[1](functional.relu(self.down[1](middle)))
        deepest = self.encoders[2](functional.relu(self.down[2](coarse)))
        coarse = self.decoders[1](functional.relu(coarse + self.up[2](deepest)))
        middle = self.decoders[0](functional.relu(middle + self.up[1](coarse)))
        fine = self.refine(functional.relu(fine + self.up[0](middle)))
        return unfold(self.head(fine), CELL)

    def folded(self) -> VesselNet:
        """Return the same function with the standardisation folded into plain weights."""
        plain = VesselNet(self.widths)
        layers = dict(self.named_modules())
        state = {name: value for name, value in self.state_dict().items() if not name.endswith(".gain")}
        for name, layer in layers.items():
            if isinstance(layer, StandardisedConv):
                state[f"{name}.weight"] = layer.standardised().detach()
        plain.load_state_dict(state)
        return plain.train(self.training)


def load_network(weights: Path) -> VesselNet:
    """Load the weights that a run leaves, with standardisation folded into them, for inference."""
    state = torch.load(weights, weights_only=True)
    fine, middle, coarse, deepest = (len(state[f"{layer}.bias"]) for layer in ("stem", "down.0", "down.1", "down.2"))
    network = VesselNet((fine, middle, coarse, deepest))
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval()


def _halving(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, (2, 2, 1), stride=(2, 2, 1))


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(inputs, outputs, (2, 2, 1), stride=(2, 2, 1))


def picture_views(picture: Tensor) -> Tensor:
    """(N, 1, X, Y, Z) to (N, 3, X, Y, Z): the picture, its square root and its logarithm."""
    light = torch.clamp(picture, min=0.0)
    logarithm = torch.log(light / DARK + 1.0) / math.log(1.0 / DARK + 1.0)
    return torch.cat([picture, torch.sqrt(light + 1e-4), logarithm], dim=1)


def fold(x: Tensor, cell: int) -> Tensor:
    """(N, C, X, Y, Z) to (N, C*cell*cell, X/cell, Y/cell, Z): in-plane cells become channels."""
    n, channels, width, height, depth = x.shape
    x = x.reshape(n, channels, width // cell, cell, height // cell, cell, depth)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(n, channels * cell * cell, width // cell, height // cell, depth)


def unfold(x: Tensor, cell: int) -> Tensor:
    """(N, C*cell*cell, X, Y, Z) to (N, C, X*cell, Y*cell, Z): the inverse of `fold`."""
    n, channels, width, height, depth = x.shape
    x = x.reshape(n, channels // (cell * cell), cell, cell, width, height, depth)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, channels // (cell * cell), width * cell, height * cell, depth)
