"""OpenSSF signatures by the contract, with keys and with certificates; the package's own command checks them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from voxport.adapters.signatures.openssf import OpenssfSignatures
from voxport.domain.errors import ModelError, UsageError
from voxport.ports.signatures import Signatures, SigningKey
from voxport.testing.signatures import SignaturesContract

from tests.keys import certified_key, key_pair


class TestOpenssfSignaturesWithKeys(SignaturesContract):
    def make_signatures(self) -> Signatures:
        return OpenssfSignatures()

    def make_key(self, folder: Path, name: str) -> tuple[SigningKey, Path]:
        return key_pair(folder, name)


class TestOpenssfSignaturesWithCertificates(SignaturesContract):
    def make_signatures(self) -> Signatures:
        return OpenssfSignatures()

    def make_key(self, folder: Path, name: str) -> tuple[SigningKey, Path]:
        return certified_key(folder, name)

    def test_a_chain_with_a_gap_does_not_hold(self) -> None:
        self.signatures.sign(self.file, self.signature, SigningKey(self.key.private, self.key.certificate))
        with pytest.raises(ModelError, match="issuer"):
            self.check()

    def test_a_certificate_of_another_key_is_refused(self, tmp_path: Path) -> None:
        other, _ = certified_key(tmp_path, "theirs")
        with pytest.raises(UsageError, match="does not match"):
            self.signatures.sign(self.file, self.signature, SigningKey(other.private, self.key.certificate))

    @pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")  # the library says it so
    def test_a_certificate_that_is_not_for_signatures_does_not_hold(self, tmp_path: Path) -> None:
        key, root = certified_key(tmp_path, "authority", may_sign=False)
        self.signatures.sign(self.file, self.signature, key)
        with pytest.raises(ModelError, match="cannot be used for signing"):
            self.signatures.check(self.file, self.signature, root)

    def test_a_certificate_straight_from_the_root_needs_no_chain(self, tmp_path: Path) -> None:
        key, root = certified_key(tmp_path, "straight", deep=False)
        self.signatures.sign(self.file, self.signature, key)
        self.signatures.check(self.file, self.signature, root)

    def test_a_signature_with_a_key_does_not_pass_for_one_with_a_certificate(self, tmp_path: Path) -> None:
        key, public = key_pair(tmp_path, "bare")
        self.signatures.sign(self.file, self.signature, key)
        with pytest.raises(ModelError, match="valid signature"):
            self.check()
        self.sign()
        with pytest.raises(ModelError, match="valid signature"):
            self.signatures.check(self.file, self.signature, public)


@pytest.mark.parametrize("kind", ["encrypted", "rsa", "k1"])
def test_a_key_that_openssf_does_not_take_is_refused(kind: str, tmp_path: Path) -> None:
    cipher: serialization.KeySerializationEncryption = serialization.NoEncryption()
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(
        ec.SECP256K1() if kind == "k1" else ec.SECP256R1()
    )
    if kind == "rsa":
        private = rsa.generate_private_key(65537, 2048)
    if kind == "encrypted":
        cipher = serialization.BestAvailableEncryption(b"secret")
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher))
    (tmp_path / "model").write_bytes(b"weights")
    with pytest.raises(UsageError, match=r"P-256, P-384 or P-521, unencrypted"):
        OpenssfSignatures().sign(tmp_path / "model", tmp_path / "model.sig", SigningKey(path))


def test_openssfs_own_command_takes_these_signatures_and_ours_takes_its(tmp_path: Path) -> None:
    from model_signing._cli import main

    key, public = key_pair(tmp_path, "ours")
    model, ours, theirs = tmp_path / "model.onnx", tmp_path / "ours.sig", tmp_path / "theirs.sig"
    model.write_bytes(b"weights")
    OpenssfSignatures().sign(model, ours, key)
    checked = CliRunner().invoke(
        main, ["verify", "key", str(model), "--signature", str(ours), "--public_key", str(public)]
    )
    assert checked.exit_code == 0, checked.output
    signed = CliRunner().invoke(
        main, ["sign", "key", str(model), "--signature", str(theirs), "--private_key", str(key.private)]
    )
    assert signed.exit_code == 0, signed.output
    OpenssfSignatures().check(model, theirs, public)


def test_a_linked_file_is_signed_by_its_content(tmp_path: Path) -> None:
    """Kubernetes mounts files of config maps and secrets as links."""
    key, public = key_pair(tmp_path, "ours")
    (tmp_path / "data").write_bytes(b"weights")
    (tmp_path / "model.onnx").symlink_to("data")
    signatures = OpenssfSignatures()
    signatures.sign(tmp_path / "model.onnx", tmp_path / "model.onnx.sig", key)
    signatures.check(tmp_path / "model.onnx", tmp_path / "model.onnx.sig", public)
