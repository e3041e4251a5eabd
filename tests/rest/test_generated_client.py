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


def test_a_generated_client_uploads_a_volume(
    server: Server, http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, folder = tmp_path / "openapi.json", tmp_path / "generated_voxport"
    document.write_text(json.dumps(http.get("/openapi.json").json()), encoding="utf-8")
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps({"post_hooks": [], "content_type_overrides": {GZIP: "application/octet-stream"}}), encoding="utf-8"
    )
    tool = Path(sys.executable).with_name("openapi-python-client")
    made = subprocess.run(
        [
            *(str(tool), "generate", "--meta", "none"),
            *("--path", str(document), "--config", str(settings), "--output-path", str(folder)),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    package = folder.name
    client = importlib.import_module(f"{package}.client").Client(base_url=server.url)
    file = importlib.import_module(f"{package}.types").File
    body = importlib.import_module(f"{package}.models").BodySegment
    segment = importlib.import_module(f"{package}.api.segment.segment")
    with (tmp_path / "scan.nii.gz").open("w+b") as scan, client:
        scan.write(SCAN)
        scan.seek(0)
        answer = segment.sync_detailed(client=client, body=body(volume=[file(scan, "scan.nii.gz")]))
    assert int(answer.status_code) == 200, answer.content
    expected = http.post("/segment", files={"volume": SCAN}).content
    got, wanted = (
        np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
        for content in (answer.content, expected)
    )
    np.testing.assert_array_equal(got, wanted)
