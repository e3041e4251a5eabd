"""Contract suite of `Signatures`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ..domain.errors import ModelError, OutputError, UsageError
from ..ports.signatures import Signatures, SigningKey


class SignaturesContract:
    """Subclass and implement the hooks."""

    @pytest.fixture(autouse=True)
    def _prepared(self, tmp_path: Path) -> None:
        self.signatures = self.make_signatures()
        self.file, self.signature = tmp_path / "model.onnx", tmp_path / "model.onnx.sig"
        self.file.write_bytes(b"weights and a card")
        self.key, self.trusted = self.make_key(tmp_path, "ours")

    def make_signatures(self) -> Signatures:
        """Return signatures."""
        raise NotImplementedError

    def make_key(self, folder: Path, name: str) -> tuple[SigningKey, Path]:
        """Make another key of this name; return it, and what trusts it."""
        raise NotImplementedError

    def sign(self) -> None:
        """Sign the file."""
        self.signatures.sign(self.file, self.signature, self.key)

    def check(self) -> None:
        """Check the file's signature."""
        self.signatures.check(self.file, self.signature, self.trusted)

    def test_a_signature_holds_also_under_another_name_and_in_another_process(self, tmp_path: Path) -> None:
        self.sign()
        self.check()
        moved = self.file.rename(tmp_path / "<b>renamed & moved.onnx")
        self.make_signatures().check(moved, self.signature, self.trusted)

    @pytest.mark.parametrize("content", [b"Weights and a card", b"weights and a card ", b"weights", b""])
    def test_a_file_that_changed_by_one_byte_does_not_hold(self, content: bytes) -> None:
        self.sign()
        self.check()
        self.file.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.onnx: expected a valid signature"):
            self.check()

    def test_a_file_that_is_as_it_was_again_holds_again(self) -> None:
        self.sign()
        content = self.file.read_bytes()
        self.file.write_bytes(b"another")
        with pytest.raises(ModelError):
            self.check()
        self.file.write_bytes(content)
        self.check()

    def test_a_signature_by_somebody_else_does_not_hold(self, tmp_path: Path) -> None:
        other, _ = self.make_key(tmp_path, "theirs")
        self.signatures.sign(self.file, self.signature, other)
        with pytest.raises(ModelError, match="valid signature"):
            self.check()

    def test_a_missing_signature_is_named(self) -> None:
        with pytest.raises(ModelError, match=r"expected a signature in model\.onnx\.sig, got none"):
            self.check()

    @pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\x00", b"{" * 4000, b" " * 2**21, b"null"])
    def test_a_damaged_signature_does_not_hold(self, content: bytes) -> None:
        self.signature.write_bytes(content)
        with pytest.raises(ModelError, match="valid signature") as refused:
            self.check()
        assert "\n" not in str(refused.value)

    def test_every_cut_of_a_signature_does_not_hold(self) -> None:
        self.sign()
        content = self.signature.read_bytes()
        for length in range(0, len(content), max(1, len(content) // 40)):
            self.signature.write_bytes(content[:length])
            with pytest.raises(ModelError):
                self.check()

    def test_the_signature_of_another_file_does_not_hold(self, tmp_path: Path) -> None:
        other = tmp_path / "other.onnx"
        other.write_bytes(b"other weights")
        self.signatures.sign(other, self.signature, self.key)
        with pytest.raises(ModelError, match="valid signature"):
            self.check()

    def test_a_wrong_key_makes_no_signature(self, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong.pem"
        for content in (b"", b"no key", self.trusted.read_bytes()):
            wrong.write_bytes(content)
            with pytest.raises(UsageError, match="key: expected a private key"):
                self.signatures.sign(self.file, self.signature, replace(self.key, private=wrong))
        with pytest.raises(UsageError, match="no such file"):
            self.signatures.sign(self.file, self.signature, replace(self.key, private=tmp_path / "missing"))
        assert not self.signature.exists()

    def test_what_is_trusted_must_be_a_key_or_certificates(self, tmp_path: Path) -> None:
        self.sign()
        for content in (b"", b"no key", b"\xff", self.key.private.read_bytes()):
            (tmp_path / "wrong.pem").write_bytes(content)
            with pytest.raises(UsageError, match="trusted: expected a public key"):
                self.signatures.check(self.file, self.signature, tmp_path / "wrong.pem")

    def test_a_signature_that_cannot_be_written_is_an_output_error(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError):
            self.signatures.sign(self.file, tmp_path / "nowhere" / "model.onnx.sig", self.key)
        assert sorted(p.suffix for p in tmp_path.iterdir() if p.name.startswith("model")) == [".onnx"]
