"""Signatures of models: made, checked, and asked for before a model is served."""

from __future__ import annotations

from pathlib import Path

from ...domain.errors import ModelError, VoxportError
from ...ports.model import Model
from ...ports.signatures import Signatures, SigningKey, signature_of


def sign_model(model: Model, key: SigningKey, signatures: Signatures) -> Path:
    """Sign a model file with its card; return the signature's path.

    Raises:
        ModelError: the card is not in the file, so that a signature would leave it out.
        UsageError, OutputError: as ``Signatures.sign``.
    """
    _check_card(model)
    signatures.sign(model.path, signature_of(model.path), key)
    return signature_of(model.path)


def check_signature(model: Model, trusted: Path, signatures: Signatures) -> None:
    """Check that the signature beside a model is of its file and card, and by whom ``trusted`` names.

    Raises:
        ModelError: it is not, or the card is not in the file.
        UsageError: as ``Signatures.check``.
    """
    _check_card(model)
    signatures.check(model.path, signature_of(model.path), trusted)


class Trust:
    """Which models may be served: all, or those whose signatures verify with ``trusted``."""

    def __init__(self, signatures: Signatures, trusted: Path | None) -> None:
        self._signatures = signatures
        self._trusted = trusted

    @property
    def required(self) -> bool:
        """Whether models must be signed."""
        return self._trusted is not None

    def refusal(self, model: Model) -> str | None:
        """Return why a model may not be served; None if it may."""
        if self._trusted is None:
            return None
        try:
            check_signature(model, self._trusted, self._signatures)
        except VoxportError as error:
            return str(error)
        return None

    def check_file(self, file: Path) -> None:
        """Check the signature of a file without a card. Raises ModelError, UsageError."""
        if self._trusted is not None:
            self._signatures.check(file, signature_of(file), self._trusted)


def _check_card(model: Model) -> None:
    if not model.card_inside:
        raise ModelError(
            model.path.name,
            expected="a file with its card inside, so that a signature covers both",
            got="a card of another file",
            do="embed it: voxport models add FILE, then sign the model by its name",
        )
