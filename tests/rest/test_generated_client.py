"""A client that openapi-python-client generates from the document uploads a volume and gets its mask."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

from .odd import SCAN
from .serving import Server

GZIP = "application/gzip"


def segmented_by_generated_client(
    server: Server, http: httpx.Client, scan: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """Generate a client of a server's document in a folder, and segment a volume with it; the mask's file."""
    document, package = folder / "openapi.json", folder / "generated_voxport"
    document.write_text(json.dumps(http.get("/openapi.json").json()), encoding="utf-8")
    settings = folder / "settings.json"
    settings.write_text(
        json.dumps({"post_hooks": [], "content_type_overrides": {GZIP: "application/octet-stream"}}), encoding="utf-8"
    )
    tool = Path(sys.executable).with_name("openapi-python-client")
    made = subprocess.run(
        [
            *(str(tool), "generate", "--meta", "none"),
            *("--path", str(document), "--config", str(settings), "--output-path", str(package)),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(folder))
    client = importlib.import_module(f"{package.name}.client").Client(base_url=server.url)
    file = importlib.import_module(f"{package.name}.types").File
    body = importlib.import_module(f"{package.name}.models").BodySegment
    segment = importlib.import_module(f"{package.name}.api.segment.segment")
    with scan.open("rb") as volume, client:
        answer = segment.sync_detailed(client=client, body=body(volume=[file(volume, "scan.nii.gz")]))
    assert int(answer.status_code) == 200, answer.content
    return bytes(answer.content)


def test_a_generated_client_uploads_a_volume(
    server: Server, http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(SCAN)
    mask = segmented_by_generated_client(server, http, scan, tmp_path, monkeypatch)
    expected = http.post("/segment", files={"volume": SCAN}).content
    got, wanted = (
        np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj) for content in (mask, expected)
    )
    np.testing.assert_array_equal(got, wanted)
