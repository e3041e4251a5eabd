"""Port for signatures of model files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


def signature_of(file: Path) -> Path:
    """Where the signature of a file is kept: beside it, as ``NAME.onnx.sig``."""
    return file.with_name(f"{file.name}.sig")


@dataclass(frozen=True)
class SigningKey:
    """What a file is signed with: a private key, and the certificate of its public key where there is one.

    ``chain`` are the certificates between that one and the root, which whoever checks the signature has.
    """

    private: Path
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


class Signatures(Protocol):
    """Signs files and checks signatures, without a network. Safe for several threads."""

    def sign(self, file: Path, signature: Path, key: SigningKey) -> None:
        """Write the signature of a file's content; all or nothing.

        Raises:
            UsageError: a key or a certificate that cannot sign.
            OutputError: ``signature`` cannot be written.
            NotInstalledError: a package is missing.
        """

    def check(self, file: Path, signature: Path, trusted: Path) -> None:
        """Check that a signature is of a file's content as it is now, and by whom ``trusted`` names.

        ``trusted`` is a PEM file: a public key, or the certificates at the root of the signer's.

        Raises:
            ModelError: it is missing, damaged, of other content, or by somebody else.
            UsageError: ``trusted`` cannot be read, or holds neither.
            NotInstalledError: a package is missing.
        """
