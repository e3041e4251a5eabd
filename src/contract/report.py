"""Reports that were left on disk, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..domain.cards.model_card import ModelCard
from ..domain.errors import InputError
from ..domain.report import Report
from .card import read_card
from .reading import problems_of


def check_report(data: Mapping[str, Any], subject: str) -> ModelCard:
    """Check that plain data is a report (``voxport/report/1``) with a card, and return the card.

    Raises:
        InputError: a part is missing or wrong; keys that this version does not know are left alone.
        ModelError: the card is wrong.
    """
    try:
        TypeAdapter(Report).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        path, words = problems_of(error)[0]
        raise InputError(
            subject, expected="a report of voxport", got=f"one whose {path} {words}", do="segment the case again"
        ) from None
    return read_card(data["model"]["card"], f"the card in {subject}")
