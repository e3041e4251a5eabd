"""``voxport models sign``, ``check`` and ``bom``, and ``voxport sbom``."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import yaml

from tests.keys import certified_key, key_pair

from .conftest import Command


def test_a_stored_model_is_signed_by_name_and_checked_with_what_the_settings_trust(
    voxport: Command, model: Path, tmp_path: Path
) -> None:
    key, root = certified_key(tmp_path, "lab")
    voxport("models", "add", model)
    assert key.certificate is not None
    signing = ("--key", key.private, "--certificate", key.certificate, "--chain", key.chain[0])
    signed = voxport("models", "sign", "affine", *signing)
    stored = tmp_path / "data" / "voxport" / "models" / "affine-1.0.0.onnx.sig"
    assert signed.stdout == f"{stored}: affine:1.0.0 signed\n", signed.stderr
    trusted = {"VOXPORT_REQUIRE_SIGNED": str(root)}
    checked = voxport("models", "check", "affine", env=trusted)
    assert (checked.returncode, checked.stdout) == (0, "affine:1.0.0 is signed, and as it was when it was signed\n")
    _, other = key_pair(tmp_path, "other")
    refused = voxport("models", "check", "affine", "--trusted", other)
    assert refused.returncode == 4
    assert len(refused.stderr.splitlines()) == 1
    # one that is added again is another file, under an old signature
    proto = onnx.load(model)
    proto.doc_string = "changed"
    onnx.save(proto, model)
    voxport("models", "add", model)
    assert voxport("models", "check", "affine", env=trusted).returncode == 4
    voxport("models", "remove", "affine")
    assert list(stored.parent.iterdir()) == []


def test_what_cannot_be_signed_or_checked_is_said_in_one_line(voxport: Command, model: Path, tmp_path: Path) -> None:
    key, public = key_pair(tmp_path, "lab")
    bare = tmp_path / "bare.onnx"
    proto = onnx.load(model)
    card = json.loads(next(p.value for p in proto.metadata_props if p.key == "voxport.card"))
    del proto.metadata_props[:]
    onnx.save(proto, bare)
    (tmp_path / "bare.card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    for arguments, code, said in (
        (("sign", bare, "--key", key.private), 4, "card inside"),
        (("sign", model, "--key", tmp_path / "missing"), 2, "--key: expected a private key"),
        (("sign", model, "--key", public), 2, "--key: expected a private key"),
        (("sign", model, "--key", key.private, "--chain", public), 2, "--certificate too"),
        (("check", model), 2, "--trusted: expected"),
        (("check", model, "--trusted", public), 4, "got none; sign it"),
        (("check", model, "--trusted", tmp_path / "missing"), 2, "--trusted: expected a public key"),
    ):
        done = voxport("models", *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.sig"))


def test_bills_go_to_standard_output_or_a_file(voxport: Command, model: Path, tmp_path: Path) -> None:
    shown = voxport("models", "bom", model)
    assert json.loads(shown.stdout)["metadata"]["component"]["type"] == "machine-learning-model"
    assert voxport("models", "bom", model, "-o", "bom.json").stdout == ""
    assert (tmp_path / "bom.json").read_text(encoding="utf-8") == shown.stdout
    assert voxport("sbom", "-o", "sbom.json").returncode == 0
    named = {c["name"] for c in json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))["components"]}
    assert {"numpy", "onnx", "python"} <= named
    refused = voxport("sbom", "-o", "nowhere/sbom.json")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
