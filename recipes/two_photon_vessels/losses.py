"""A loss for thin vessels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .generator import HIDDEN

CENTRELINE_WEIGHT = 0.1


def vessel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy + soft Dice + missed centreline.

    `logits` (N, 2, X, Y, Z); `target` (N, X, Y, Z) with 0 background, 1 vessel, 2 vessel on a centreline, 3 a vessel
    that cannot be seen, where no prediction costs anything. Centrelines are weighted by length, so a capillary counts
    as much as a trunk of a hundred times its volume (skeleton recall, Kirchhoff et al. 2024).
    """
    logits = logits.float()
    known = (target != HIDDEN).float()
    vessel = (target > 0).float() * known
    entropy = functional.cross_entropy(logits, (target > 0).long(), reduction="none")
    entropy = (entropy * known).sum() / known.sum().clamp(min=1.0)
    probability = torch.softmax(logits, dim=1)[:, 1] * known
    axes = (1, 2, 3)
    overlap = (probability * vessel).sum(axes)
    dice = (2 * overlap + 10.0) / (probability.sum(axes) + vessel.sum(axes) + 10.0)
    line = (target == 2).float()
    recall = ((probability * line).sum(axes) + 5.0) / (line.sum(axes) + 5.0)
    return entropy + (1 - dice).mean() + CENTRELINE_WEIGHT * (1 - recall).mean()
