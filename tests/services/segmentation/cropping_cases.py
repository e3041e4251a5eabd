"""Cards that crop, and what the network takes of a case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from voxport.domain.cards.model_card import Crop, ModelCard, ResamplingRule
from voxport.domain.intensity import Step
from voxport.domain.run import RunOptions
from voxport.services.segmentation.case import Case
from voxport.services.segmentation.inference import Inferer
from voxport.services.segmentation.preparation.prepare import Prepared, prepare
from voxport.testing.affine import Floats
from voxport.testing.resources import FixedResources

from tests.services.conftest import brighter_than, load, make_card

When = Literal["after_intensity", "before_intensity"]


def card_that_crops(
    crop: Crop | None,
    *steps: Step,
    when: When = "after_intensity",
    own: tuple[Step, ...] | None = None,
    rule: ResamplingRule = ResamplingRule(),  # noqa: B008 - a frozen value
    **options: Any,
) -> ModelCard:
    """Make a card; ``own`` are the steps of its last channel."""
    card = make_card(intensity=steps, **options)
    *others, last = card.input.channels
    channels = (*others, replace(last, intensity=own))
    return replace(card, input=replace(card.input, channels=channels, crop=crop, resampling=replace(rule, when=when)))


def prepared_case(case: Case, card: ModelCard, **options: Any) -> Prepared:
    """Prepare a run."""
    inferer = Inferer(load(brighter_than(0.5), card).runtime, card)
    return prepare(case, card, inferer, RunOptions(**options), resources=FixedResources())


def network_input(prepared: Prepared) -> Floats:
    """Return what the network takes, ``(C, x, y, z)`` on the model's grid."""
    axis = 1 + prepared.plan.axis
    found: Floats = np.stack(list(prepared.planes()), axis)
    return found
