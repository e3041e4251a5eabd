"""A TypeScript client that openapi-ts generates from the document compiles, uploads a volume and gets its mask."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from .serving import Server

TOOLS = Path(__file__).resolve().parents[2] / "build" / "typescript" / "node_modules"
PROGRAM = Path(__file__).with_name("typescript_client.ts")
OPTIONS = {
    "target": "es2022",
    "module": "commonjs",
    "moduleResolution": "node10",
    "lib": ["es2022", "dom", "dom.iterable"],
    "strict": True,
    "outDir": "out",
    "rootDir": ".",
    "types": [],
}


def run(folder: Path, *command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def segmented_by_typescript_client(server: Server, http: httpx.Client, scan: Path, folder: Path) -> bytes:
    """Generate and compile a client of a server's document in a folder, and segment with it; the mask's file."""
    if not (TOOLS / ".bin" / "tsc").exists():
        pytest.skip("no tools for TypeScript here")
    (folder / "openapi.json").write_text(json.dumps(http.get("/openapi.json").json()), encoding="utf-8")
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS}), encoding="utf-8")
    (folder / "node.d.ts").write_text(
        'declare module "node:fs" {\n'
        "  export function openAsBlob(path: string): Promise<Blob>;\n"
        "  export function writeFileSync(path: string, data: Uint8Array): void;\n"
        "}\n"
        "declare const process: { argv: string[] };\n",
        encoding="utf-8",
    )
    shutil.copy(PROGRAM, folder / "main.ts")
    run(folder, TOOLS / ".bin" / "openapi-ts", "-i", "openapi.json", "-o", "client", "-c", "@hey-api/client-fetch")
    run(folder, TOOLS / ".bin" / "tsc", "-p", ".")
    run(folder, "node", "out/main.js", server.url, scan, folder / "mask.nii.gz")
    return (folder / "mask.nii.gz").read_bytes()


def test_a_generated_typescript_client_uploads_a_volume(
    server: Server, http: httpx.Client, scan: Path, tmp_path: Path
) -> None:
    mask = segmented_by_typescript_client(server, http, scan, tmp_path)
    assert mask == http.post("/segment", files={"volume": ("scan.nii.gz", scan.read_bytes())}).content
