"""TuningDirectory keeps the TuningStore contract, and never leaves half a record."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from voxport.adapters.tunings.folder import TuningDirectory
from voxport.ports.tunings import TuningStore
from voxport.testing.tunings import MACHINE, TuningStoreContract, example_tuning


class TestTuningDirectory(TuningStoreContract):
    def make_store(self) -> TuningStore:
        return TuningDirectory(self.folder / "tunings")

    def records(self) -> list[Path]:
        return sorted((self.folder / "tunings").glob("*/*.json"))

    def comparisons(self) -> list[Path]:
        return sorted((self.folder / "tunings").glob("*/compared/*.json"))

    def block(self) -> None:
        (self.folder / "tunings").write_text("a file where the folder should be", encoding="utf-8")


def test_nothing_is_written_before_something_is_put(tmp_path: Path) -> None:
    TuningDirectory(tmp_path / "tunings").find("a" * 64, MACHINE)
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_json_for_people_to_read_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    TuningDirectory(tmp_path).put(example_tuning())
    (record,) = (path for path in tmp_path.rglob("*") if path.is_file())
    read = json.loads(record.read_text(encoding="utf-8"))
    assert read["choice"] == {
        "runtime": "openvino",
        "precision": "bf16",
        "threads": 2,
        "patch": [16, 16, 8],
        "batch": 1,
    }


def test_a_reader_finds_a_whole_record_while_others_write(tmp_path: Path) -> None:
    store, stop = TuningDirectory(tmp_path), threading.Event()
    store.put(example_tuning())

    def write() -> None:
        while not stop.is_set():
            store.put(example_tuning())

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all(store.find("a" * 64, MACHINE).tuning is not None for _ in range(200))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
