"""The statement of provenance is one by in-toto's own library, and true of the files and the checkout."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance as ProvenanceMessage
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from .composed import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "constraints.txt").write_text("numpy==2.4.6\n", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "Begin")
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout.strip()


def script() -> Any:
    spec = importlib.util.spec_from_file_location("provenance", ROOT / ".ci" / "provenance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_names_files_commit_and_pins_and_is_valid(checkout: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "voxport-1.whl"
    wheel.write_bytes(b"a wheel")
    made = json.loads(json.dumps(script().statement([wheel], "https://lab.example/builder", checkout)))
    message = json_format.ParseDict(made, StatementMessage())
    Statement.copy_from_pb(message).validate()
    json_format.ParseDict(made["predicate"], ProvenanceMessage())  # which takes no other fields
    assert made["subject"] == [{"name": wheel.name, "digest": {"sha256": hashlib.sha256(b"a wheel").hexdigest()}}]
    source, pins = made["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"]["gitCommit"] == git(checkout, "rev-parse", "HEAD")
    assert pins["digest"]["sha256"] == hashlib.sha256(b"numpy==2.4.6\n").hexdigest()


def test_a_checkout_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("numpy==1\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"constraints\.txt"):
        script().statement([], "urn:a", checkout)
