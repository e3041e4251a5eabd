"""Contract suite of `ModelImporter`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ..domain.errors import ModelError, UsageError
from ..ports.exporter import Checkpoint
from ..ports.importer import ImportChoices, Imported, ModelImporter


class ModelImporterContract:
    """Subclass and implement the hooks."""

    @pytest.fixture(autouse=True)
    def _prepared(self, tmp_path: Path) -> None:
        self.folder, self.unpacked = tmp_path / "source", tmp_path / "unpacked"
        self.folder.mkdir()
        self.unpacked.mkdir()
        self.importer = self.make_importer()
        self.source = self.make_source(self.folder)

    def make_importer(self) -> ModelImporter:
        """Return an importer."""
        raise NotImplementedError

    def make_source(self, folder: Path) -> Path:
        """Write a network of the framework below ``folder``; return the path that a user would name."""
        raise NotImplementedError

    def damage(self, source: Path) -> None:
        """Cut the source's main file short, or take away what it needs."""
        raise NotImplementedError

    def read(self, choices: ImportChoices | None = None) -> Imported:
        """Read the source."""
        return self.importer.read(self.source, choices or ImportChoices(), self.unpacked)

    def test_recognises_its_own_files_and_no_others(self, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "scan.nii").write_bytes(b"\0" * 400)
        empty = tmp_path / "empty.zip"
        empty.write_bytes(b"PK\5\6" + b"\0" * 18)
        assert self.importer.recognises(self.source)
        assert not any(map(self.importer.recognises, (other, other / "scan.nii", empty, tmp_path / "missing")))

    def test_reads_a_card_and_a_network_that_exist(self) -> None:
        found = self.read()
        path = found.network.path if isinstance(found.network, Checkpoint) else found.network
        assert path.is_file()
        assert found.card.output.table.labels
        assert found.card.input.channels
        assert found.card.parity is None

    def test_what_is_missing_is_empty_in_the_card(self) -> None:
        found = self.read()
        assert all(getattr(found.card, name) == "" for name in found.missing)

    def test_name_and_version_may_be_chosen(self) -> None:
        assert self.read(ImportChoices(name="another", version="7.1")).card.reference == "another:7.1"

    def test_reading_changes_nothing_of_the_source(self) -> None:
        before = _hashes(self.folder)
        self.read()
        assert _hashes(self.folder) == before

    def test_a_damaged_source_is_refused_in_one_line(self) -> None:
        self.damage(self.source)
        with pytest.raises((ModelError, UsageError)) as caught:
            self.read()
        assert "\n" not in str(caught.value)


def _hashes(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
