"""Keys and certificates of tests, as PEM files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from voxport.ports.signatures import SigningKey

_MADE = datetime(2026, 1, 1, tzinfo=UTC)


def key_pair(folder: Path, name: str) -> tuple[SigningKey, Path]:
    """A key, and its public half."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = folder / f"{name}.pub.pem"
    public.write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return SigningKey(_private(private, folder / f"{name}.pem")), public


def certified_key(folder: Path, name: str, *, may_sign: bool = True, deep: bool = True) -> tuple[SigningKey, Path]:
    """A key with a certificate by a root, or by an intermediate of it, and the root."""
    root, between, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    top = _certificate("root", root, "root", root, is_authority=True)
    middle = _certificate("between", between, "root", root, is_authority=True)
    leaf = _certificate(name, own, "between" if deep else "root", between if deep else root, is_authority=not may_sign)
    paths = [folder / f"{name}.{part}.pem" for part in ("root", "between", "leaf")]
    for path, made in zip(paths, (top, middle, leaf), strict=True):
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return SigningKey(_private(own, folder / f"{name}.pem"), paths[2], (paths[1],) if deep else ()), paths[0]


def _private(key: ec.EllipticCurvePrivateKey, path: Path) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, is_authority: bool
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"),
            *("decipher_only", "digital_signature", "key_cert_sign", "crl_sign"),
        ),
        False,
    )
    usage["key_cert_sign" if is_authority else "digital_signature"] = True
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_MADE)
        .not_valid_after(_MADE + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(by, hashes.SHA256())
    )
