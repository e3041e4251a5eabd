"""The network: MONAI's SegResNet on 4x4 in-plane cells of voxels, with a shallow refinement on 2x2 cells."""

from __future__ import annotations

import math

import torch
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor, nn

TRUNK_CELL, REFINE_CELL = 4, 2
DARK = 0.02


class VesselNet(nn.Module):
    """Logits (N, 2, X, Y, Z) for images (N, 1, X, Y, Z) in 0..1; X and Y multiples of 16, Z of 4.

    Two-photon voxels are about four times longer along z than in plane. Folding 4x4 in-plane cells into channels
    makes them nearly cubic, widens the field of view fourfold and reduces the cost without averaging, so capillaries
    survive; the refinement smooths the borders of cells. The square root and the logarithm are further input channels:
    the first keeps dim capillaries beside bright trunks, and in the second the contrast of a vessel does not depend on
    how far the light has faded.
    """

    def __init__(self, filters: int = 32, features: int = 4) -> None:
        super().__init__()
        views, labels = 3, 2
        trunk, refine = TRUNK_CELL**2, REFINE_CELL**2
        self.trunk = SegResNet(
            init_filters=filters,
            in_channels=views * trunk,
            out_channels=features * trunk,
            blocks_down=(1, 1, 2),
            blocks_up=(1, 1),
        )
        self.refine = nn.Sequential(
            nn.Conv3d((features + views) * refine, filters, (3, 3, 1), padding=(1, 1, 0)),
            nn.ReLU(),
            nn.Conv3d(filters, filters, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(filters, labels * refine, 3, padding=1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Logits of background and vessel (N, 2, X, Y, Z)."""
        light = torch.clamp(picture, min=0.0)
        logarithm = torch.log(light / DARK + 1.0) / math.log(1.0 / DARK + 1.0)
        views = torch.cat([picture, torch.sqrt(light + 1e-4), logarithm], dim=1)
        coarse = unfold(self.trunk(fold(views, TRUNK_CELL)), TRUNK_CELL // REFINE_CELL)
        return unfold(self.refine(torch.cat([coarse, fold(views, REFINE_CELL)], dim=1)), REFINE_CELL)


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
