"""Signatures in the format of OpenSSF's model signing, with keys and certificates of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ....domain.errors import ModelError, UsageError
from ....ports.signatures import Signatures, SigningKey
from ...arrays import package
from ...disk import FileMemory, output_errors, write_whole

_LARGEST_BYTES = 2**20  # a signature has 2 kB, and 2 kB a certificate
_KEY, _CERTIFICATE = "-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----"


class OpenssfSignatures(Signatures):
    """Sigstore bundles by the package model-signing; nothing is asked of Sigstore's services.

    A file is hashed again only after it, its signature or the trusted file has changed.
    """

    def __init__(self) -> None:
        self._memory: FileMemory[ModelError | None] = FileMemory()

    def sign(self, file: Path, signature: Path, key: SigningKey) -> None:
        config = package("model_signing.signing", "signing", "signatures").Config()
        with _reading(
            "key", "a private key on the curve P-256, P-384 or P-521, unencrypted, in PEM, and its certificate"
        ):
            if key.certificate is None:
                config.use_elliptic_key_signer(private_key=key.private)
            else:
                # the library cannot read an empty chain; it passes over a certificate that comes twice
                chain = key.chain or (key.certificate,)
                config.use_certificate_signer(
                    private_key=key.private, signing_certificate=key.certificate, certificate_chain=chain
                )
        with output_errors(signature), TemporaryDirectory(prefix="voxport-") as folder:
            made = Path(folder) / "signature"
            config.sign(file.resolve(), made)
            write_whole(signature, made.read_bytes())

    def check(self, file: Path, signature: Path, trusted: Path) -> None:
        config = package("model_signing.verifying", "signing", "signatures").Config()
        expected = f"a public key ({_KEY}) or root certificates ({_CERTIFICATE}) in PEM"
        with _reading("trusted", expected):
            text = trusted.read_text(encoding="utf-8")
            if _CERTIFICATE in text:
                config.use_certificate_verifier(certificate_chain=[trusted])
            else:
                config.use_elliptic_key_verifier(public_key=trusted)

        def verdict() -> ModelError | None:
            do = "sign the model again, or name another key or root to trust"
            try:
                if signature.stat().st_size > _LARGEST_BYTES:
                    raise ValueError("a larger file")
                config.verify(file.resolve(), signature)
            except FileNotFoundError:
                return ModelError(file.name, expected=f"a signature in {signature.name}", got="none", do="sign it")
            except Exception as error:  # noqa: BLE001 - whatever a forged file does to its parsers, it is no signature
                got = _reason(error)
                return ModelError(file.name, expected=f"a valid signature in {signature.name}", got=got, do=do)
            return None

        found = self._memory.recall((file, signature, trusted), (file, signature, trusted), verdict)
        if found is not None:
            raise ModelError(found.subject, expected=found.expected, got=found.got, do=found.do)


@contextmanager
def _reading(field: str, expected: str) -> Iterator[None]:
    """Turn what libraries raise for keys and certificates into a UsageError."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of OSError, ValueError, TypeError and classes of two libraries
        got = (error.strerror or "an error").lower() if isinstance(error, OSError) else _reason(error)
        raise UsageError(field, expected=expected, got=got, do="give another file") from None


def _reason(error: Exception) -> str:
    """What an error says, on one line; its class where it says nothing."""
    text = " ".join(str(error).split())
    if "Hash mismatch" in text:
        return "one of other content: the file has changed since"
    return (text or f"one that does not hold ({type(error).__name__})")[:200]
