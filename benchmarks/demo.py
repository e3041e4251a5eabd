"""Measure the demo on large volumes: time of a slice on the server and in the page, and memory of the process.

The time in the page is from a slider's input event to the drawn slice, in headless Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil
from material import machine, saved, smooth_noise
from playwright.sync_api import Page, sync_playwright

PLANES = ("axial", "coronal", "sagittal")
MOVES = 25
PORT = 7899
# From the slider's move to the frame with its slice.
MOVE = """async ([plane, index]) => {
  const view = window.voxport.viewer, panel = view.panels.find(p => p.plane === plane);
  const began = performance.now();
  panel.slider.value = index;
  panel.slider.dispatchEvent(new Event("input"));
  while (panel.canvas.dataset.shown !== String(index)) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def main() -> None:
    """Print a table of milliseconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, action="append")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    shapes = [tuple(s) for s in wanted.shape or ([512, 512, 100], [1024, 1024, 512])]
    rows = []
    for shape in shapes:
        with TemporaryDirectory() as name:
            rows += measured(Path(name), shape)
    print("\n".join(f"{name:15} {value}" for name, value in machine().items()))
    print(f"\n{'volume':16} {'plane':9} {'server ms, median':>18} {'95 %':>6} {'page ms, median':>16} {'95 %':>6}")
    for row in rows:
        print(
            f"{row['shape']:16} {row['plane']:9} {row['server'][0]:18.0f} {row['server'][1]:6.0f} "
            f"{row['page'][0]:16.0f} {row['page'][1]:6.0f}"
        )
    for shape in dict.fromkeys(row["shape"] for row in rows):
        row = next(r for r in rows if r["shape"] == shape)
        print(
            f"{shape}: opened in {row['open_seconds']:.1f} s; resident {row['idle_mb']:.0f} MB before, "
            f"{row['peak_mb']:.0f} MB at the most while looked at; the volume is {row['volume_mb']:.0f} MB"
        )
    if wanted.json is not None:
        wanted.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")


def measured(folder: Path, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Return a row for each plane."""
    block = smooth_noise((256, 256, min(64, shape[2])))
    tiles = [-(-n // m) for n, m in zip(shape, block.shape, strict=True)]
    values = np.tile(block, tiles)[tuple(slice(n) for n in shape)]
    volume = saved(folder / "volume.nii.gz", values)
    size = values.nbytes / 1e6
    del values
    with demo(folder) as process, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(300_000)
        page.goto(f"http://127.0.0.1:{PORT}/")
        page.wait_for_function("document.querySelector('#vx-model input')?.value")
        page.wait_for_timeout(2000)
        idle, began = resident(process), time.perf_counter()
        page.set_input_files("#vx-upload input[type=file]", volume)
        page.wait_for_selector(".vx-axial canvas[data-shown]")
        opened = time.perf_counter() - began
        page.wait_for_selector("#vx-preflight :text('tiles')")
        rows, peak = [], resident(process)
        for plane in PLANES:
            in_page, alone = moves(page, plane)
            peak = max(peak, resident(process))
            rows.append({"plane": plane, "server": middle(alone), "page": middle(in_page)})
        browser.close()
    shared = {"shape": "x".join(map(str, shape)), "open_seconds": opened, "idle_mb": idle, "peak_mb": peak}
    return [{**shared, "volume_mb": size, **row} for row in rows]


def moves(page: Page, plane: str) -> tuple[list[float], list[float]]:
    """Return milliseconds of slider moves in the page, and of single requests for the same slices."""
    view = page.evaluate("({token: window.voxport.viewer.scene.token, planes: window.voxport.viewer.scene.planes})")
    count = view["planes"][plane]["count"]
    places = random.Random(0).sample(range(count), min(count, MOVES))
    in_page = [page.evaluate(MOVE, [plane, index]) for index in places]
    alone = []
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", trust_env=False) as client:
        for index in places:
            began = time.perf_counter()
            url = f"/session/{view['token']}/slice/{plane}/{index}"
            client.get(url, params={"low": 0, "high": 255}).raise_for_status()
            alone.append(1000 * (time.perf_counter() - began))
    return in_page, alone


def middle(times: list[float]) -> tuple[float, float]:
    """Return median and 95th percentile."""
    return float(np.median(times)), float(np.percentile(times, 95))


def resident(process: psutil.Process) -> float:
    """Return resident memory in megabytes."""
    return float(process.memory_info().rss / 1e6)


@contextmanager
def demo(folder: Path) -> Iterator[psutil.Process]:
    """Start ``voxport demo`` and wait until it is ready."""
    env = os.environ | {"VOXPORT_SCRATCH_DIR": str(folder), "VOXPORT_DEMO__MAX_UPLOAD_BYTES": str(2**33)}
    command = [sys.executable, "-m", "voxport", "demo", "--port", str(PORT)]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{PORT}/viewer/viewer.js", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


if __name__ == "__main__":
    main()
