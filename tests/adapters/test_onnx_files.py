"""OnnxModelFiles keeps the ModelFiles contract, and handles checkpoints and foreign ONNX."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import yaml
from voxport.adapters.disk import FileMemory
from voxport.adapters.models.onnx_files import CARD_KEY, OnnxModelFiles
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import ModelError
from voxport.ports.model import ModelFiles
from voxport.testing.affine import affine_card
from voxport.testing.models import ModelFilesContract, write_bare_affine


class TestOnnxModelFiles(ModelFilesContract):
    def make_files(self) -> ModelFiles:
        return OnnxModelFiles()

    def bare_weights(self, path: Path) -> None:
        write_bare_affine(path)

    def embedded_card(self, path: Path) -> str | None:
        return {p.key: p.value for p in onnx.load(path).metadata_props}.get("voxport.card")

    def write_yaml(self, path: Path, card: ModelCard) -> None:
        path.write_text(yaml.safe_dump(write_card(card)), encoding="utf-8")


def test_other_metadata_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"author": "someone"})
    onnx.save(proto, path)
    OnnxModelFiles().write(path, affine_card(1, 2), path)
    OnnxModelFiles().write(path, affine_card(1, 2), path)
    keys = [p.key for p in onnx.load(path).metadata_props]
    assert sorted(keys) == ["author", CARD_KEY]


def test_an_embedded_card_that_is_no_json_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {CARD_KEY: "{not json"})
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="valid model card"):
        OnnxModelFiles().read(path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_bare_affine(path)
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelError, match="weights inside"):
        OnnxModelFiles().read(path)


def test_a_checkpoint_is_read_with_the_card_beside_it_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"PK\x03\x04 anything")
    with pytest.raises(ModelError, match=r"net\.card\.yaml"):
        OnnxModelFiles().read(path)
    (tmp_path / "net.card.yaml").write_text(yaml.safe_dump(write_card(affine_card(1, 2))), encoding="utf-8")
    model = OnnxModelFiles().read(path)
    assert model.format == "checkpoint"
    assert model.weights_sha256 == model.sha256
    with pytest.raises(ModelError, match="export it"):
        OnnxModelFiles().write(path, model.card, tmp_path / "out.onnx")


def test_a_card_with_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("schema: voxport/model-card/1\nname: [a\n", encoding="utf-8")
    with pytest.raises(ModelError, match="line 3"):
        OnnxModelFiles().read_card(path)


class Later:
    """ONNX files at a time when every file of a test has been as it is for long, and how often they were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 60) -> None:
        self.files = OnnxModelFiles(FileMemory(now_ns=lambda: time.time_ns() + int(seconds * 1e9)))
        self.reads = 0
        read_bytes = Path.read_bytes

        def counted(path: Path) -> bytes:
            self.reads += 1
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", counted)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    return Later(monkeypatch)


def self_describing(path: Path, version: str = "1.0.0", seed: int = 0) -> Path:
    write_bare_affine(path, seed)
    return OnnxModelFiles().write(path, replace(affine_card(1, 2), version=version), path).path


def test_a_file_that_does_not_change_is_read_once(tmp_path: Path, later: Later) -> None:
    path = self_describing(tmp_path / "model.onnx")
    expected = OnnxModelFiles().read(path)
    later.reads = 0
    assert later.files.read(path) == later.files.read(path) == expected
    assert later.reads == 1


def test_a_broken_file_is_read_once_and_refused_every_time(tmp_path: Path, later: Later) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    errors = []
    for _ in range(3):
        with pytest.raises(ModelError) as raised:
            later.files.read(path)
        errors.append(raised.value)
    assert later.reads == 1
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 3


def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again within a tick of the file system's clock, and look the same."""
    path = self_describing(tmp_path / "model.onnx")
    now = Later(monkeypatch, seconds=0)
    now.files.read(path)
    now.files.read(path)
    assert now.reads == 2


@pytest.mark.parametrize("how", ["rename", "in place"])
def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_anew(tmp_path: Path, later: Later, how: str) -> None:
    path, other = self_describing(tmp_path / "model.onnx"), self_describing(tmp_path / "other.onnx", "1.0.1", seed=1)
    first = later.files.read(path)
    content = other.read_bytes()
    assert len(content) == len(path.read_bytes())
    stat = path.stat()
    if how == "rename":
        other.replace(path)
    else:
        path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    while path.stat().st_ctime_ns == stat.st_ctime_ns:  # the file system's clock has not ticked yet
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = later.files.read(path)
    assert (first.card.version, second.card.version) == ("1.0.0", "1.0.1")
    assert first.weights_sha256 != second.weights_sha256


def test_a_card_beside_that_comes_changes_and_goes_is_seen(tmp_path: Path, later: Later) -> None:
    path, beside = tmp_path / "model.onnx", tmp_path / "model.card.yaml"
    write_bare_affine(path)
    for version in ("1.0.0", "2.0.0"):
        beside.write_text(yaml.safe_dump(write_card(replace(affine_card(1, 2), version=version))), encoding="utf-8")
        assert later.files.read(path).card.version == version
    beside.unlink()
    with pytest.raises(ModelError, match="none"):
        later.files.read(path)


def test_a_card_given_is_not_taken_for_the_one_inside(tmp_path: Path, later: Later) -> None:
    path, given = self_describing(tmp_path / "model.onnx"), tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump(write_card(replace(affine_card(1, 2), version="2.0.0"))), encoding="utf-8")
    for _ in range(2):
        assert later.files.read(path).card.version == "1.0.0"
        assert later.files.read(path, given).card.version == "2.0.0"


def test_what_could_not_be_opened_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = self_describing(tmp_path / "model.onnx")
    files = OnnxModelFiles(FileMemory(now_ns=lambda: time.time_ns() + 10**11))

    def full(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", full)
        with pytest.raises(ModelError, match="too many open files"):
            files.read(path)
    assert files.read(path).card.version == "1.0.0"


def test_the_memory_is_bounded_and_keeps_what_is_used(tmp_path: Path) -> None:
    memory: FileMemory[str] = FileMemory(capacity=2, now_ns=lambda: time.time_ns() + 10**11)
    asked: list[str] = []

    def ask(name: str) -> str:
        def read() -> str:
            asked.append(name)
            return name

        return memory.recall(name, [tmp_path / name], read)

    for name in "abc":
        (tmp_path / name).touch()
    for name in "abacab":
        assert ask(name) == name
    assert asked == ["a", "b", "c", "b"]


def test_readers_never_see_an_older_file_than_the_one_that_was_there_when_they_asked(tmp_path: Path) -> None:
    """Every file is a byte longer than the last: a clock's tick cannot hide a change."""
    path = self_describing(tmp_path / "model.onnx")
    files = OnnxModelFiles(FileMemory(now_ns=lambda: time.time_ns() + 10**11))
    written = 0
    done = threading.Event()
    stale: list[tuple[int, int]] = []

    def look() -> None:
        while not done.is_set():
            at_least = written
            seen = files.read(path).card.version.count("x")
            if seen < at_least:
                stale.append((seen, at_least))

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for count in range(1, 40):
        files.write(path, replace(affine_card(1, 2), version="1.0.0" + "x" * count), path)
        written = count
    done.set()
    for reader in readers:
        reader.join()
    assert stale == []
