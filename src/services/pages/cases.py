"""Pages on cases: from a run, or from what it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ...domain.cards.model_card import ModelCard
from ...domain.errors import InputError
from ...domain.reading import Reading
from ...domain.viewing.pages import CaseFigures, CasePage
from ...ports.pictures import PictureEncoder
from ...ports.volume_store import VolumeStore
from ..segmentation.case import Case, describe_grid, survey
from .figures import case_figures

_KEY_LENGTH = 16  # digits of the mask's sha256 in the key of a rating


def case_page(
    name: str, report: Mapping[str, Any], mask_sha256: str, figures: CaseFigures | None, notes: Sequence[str] = ()
) -> CasePage:
    """Return the page of a case. Its ratings hold for this mask: another one has another key."""
    return CasePage(name, report, f"{mask_sha256[:_KEY_LENGTH]} {name}", figures, tuple(notes))


def stored_figures(
    inputs: Sequence[str], mask: str, reading: Reading, card: ModelCard, volumes: VolumeStore, pictures: PictureEncoder
) -> tuple[CaseFigures, tuple[str, ...], str]:
    """Draw a case from its stored volumes and mask; return its figures, and the sha256 of volumes and mask.

    Values that are not finite are drawn as 0.

    Raises:
        InputError: a volume or the mask cannot be read, or they have not the same shape.
        LimitError, UsageError
    """
    with ExitStack() as stack:
        case = Case.open(volumes, inputs, stack, reading)
        case.check_fits(card)
        source = stack.enter_context(volumes.open(mask))
        if source.grid.shape != case.grid.shape or source.channels != 1:
            expected, got = f"a mask on the grid {describe_grid(case.grid)}", describe_grid(source.grid)
            raise InputError(mask, expected=expected, got=got, do="name the mask of this volume")
        found = case_figures(case, lambda box: source.read(box)[0], card, survey(case, 0.0), pictures)
        return found, tuple(opened.sha256() for opened in case.sources), source.sha256()
