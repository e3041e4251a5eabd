"""The contract that every TuningStore keeps, as a pytest class to subclass, and a tuning to keep in it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from ..domain.errors import OutputError
from ..domain.parity import Agreement, Parity, RuntimeParity
from ..domain.tuning import Candidate, Choice, Machine, Tuning
from ..ports.tunings import FoundTuning, TuningStore

MACHINE = Machine("a processor", 2, (("onnxruntime", "1.0"), ("openvino", "2.0")))
REFERENCE = Choice("onnx", "fp32", 2, (16, 16, 8))
FASTER = Choice("openvino", "bf16", 2, (16, 16, 8))
COMPARED = RuntimeParity("openvino", "fp32", "openvino 2.0", Parity(1.0, (1.0,), 1e-6, 4.0))


def example_tuning(model: str = "a" * 64, machine: Machine = MACHINE) -> Tuning:
    """A tuning with a reference, a faster way that was kept, and one that was not run."""
    return Tuning(
        model=model,
        name="vessels:1.0.0",
        machine=machine,
        date="2026-01-01",
        volume="scan.nii.gz",
        candidates=(
            Candidate(REFERENCE, 1.5, Agreement(1.0, (1.0, 1.0)), note="the reference"),
            Candidate(FASTER, 0.5, Agreement(0.9995, (0.9992, 1.0))),
            Candidate(replace(FASTER, patch=(32, 32, 8)), note="not tried"),
        ),
        choice=FASTER,
    )


class TuningStoreContract:
    """Subclass it and fill in the hooks."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.store = self.make_store()

    def make_store(self) -> TuningStore:
        """A store below ``self.folder``; all stores of a test share their tunings."""
        raise NotImplementedError

    def records(self) -> list[Path]:
        """The files of all tunings, without quantised networks."""
        raise NotImplementedError

    def quantised_tuning(self, content: bytes = b"network", model: str = "a" * 64) -> tuple[Tuning, Path]:
        path = self.folder / "quantised.onnx"
        path.write_bytes(content)
        return replace(example_tuning(model), quantised_sha256=hashlib.sha256(content).hexdigest()), path

    def test_there_is_no_tuning_at_first_and_no_warning(self) -> None:
        assert self.store.find("a" * 64, MACHINE) == FoundTuning()

    def test_what_was_put_is_found_by_another_process_too(self) -> None:
        self.store.put(example_tuning())
        for store in (self.store, self.make_store()):
            assert store.find("a" * 64, MACHINE) == FoundTuning(example_tuning())

    def test_a_later_tuning_takes_the_place_of_the_one_before(self) -> None:
        self.store.put(example_tuning())
        later = replace(example_tuning(), date="2026-02-02", choice=REFERENCE)
        self.store.put(later)
        assert self.store.find("a" * 64, MACHINE).tuning == later

    def test_models_are_kept_apart(self) -> None:
        for model in ("a" * 64, "b" * 64):
            self.store.put(example_tuning(model))
        assert self.store.find("b" * 64, MACHINE).tuning == example_tuning("b" * 64)
        assert self.store.find("c" * 64, MACHINE) == FoundTuning()

    @pytest.mark.parametrize(
        "other",
        [
            replace(MACHINE, processor="another"),
            replace(MACHINE, threads=3),
            replace(MACHINE, versions=(("onnxruntime", "1.0"), ("openvino", "2.1"))),
            replace(MACHINE, versions=(("onnxruntime", "1.0"),)),
        ],
        ids=["processor", "threads", "version", "library"],
    )
    def test_another_machine_has_a_tuning_of_its_own_and_a_warning_until_then(self, other: Machine) -> None:
        self.store.put(example_tuning())
        found = self.store.find("a" * 64, other)
        assert found.tuning is None
        assert "voxport tune" in (found.warning or "")
        self.store.put(example_tuning(machine=other))
        assert self.store.find("a" * 64, other) == FoundTuning(example_tuning(machine=other))
        assert self.store.find("a" * 64, MACHINE) == FoundTuning(example_tuning())

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"model": 3}'])
    def test_a_damaged_record_is_ignored_with_a_warning_and_replaced_by_the_next(self, content: bytes) -> None:
        self.store.put(example_tuning())
        (record,) = self.records()
        record.write_bytes(content)
        found = self.store.find("a" * 64, MACHINE)
        assert found.tuning is None
        assert "voxport tune" in (found.warning or "")
        self.store.put(example_tuning())
        assert self.store.find("a" * 64, MACHINE) == FoundTuning(example_tuning())

    def test_a_record_of_something_else_is_ignored_with_a_warning(self) -> None:
        self.store.put(example_tuning("b" * 64))
        (other,) = self.records()
        self.store.put(example_tuning("a" * 64))
        (mine,) = (path for path in self.records() if path != other)
        mine.write_bytes(other.read_bytes())
        found = self.store.find("a" * 64, MACHINE)
        assert found.tuning is None
        assert "voxport tune" in (found.warning or "")

    def test_a_quantised_network_is_kept_as_a_copy(self) -> None:
        tuning, path = self.quantised_tuning()
        self.store.put(tuning, path)
        path.unlink()
        kept = self.store.quantised(tuning)
        assert kept is not None
        assert kept.read_bytes() == b"network"

    def test_a_tuning_without_one_has_none_and_drops_the_one_before(self) -> None:
        tuning, path = self.quantised_tuning()
        self.store.put(tuning, path)
        self.store.put(example_tuning())
        assert self.store.quantised(example_tuning()) is None
        assert self.store.quantised(tuning) is None

    def test_a_quantised_network_that_is_no_longer_the_same_is_none(self) -> None:
        tuning, path = self.quantised_tuning()
        self.store.put(tuning, path)
        kept = self.store.quantised(tuning)
        assert kept is not None
        kept.write_bytes(b"another")
        assert self.store.quantised(tuning) is None

    def test_another_file_than_the_tuning_names_is_refused_and_nothing_is_kept(self) -> None:
        tuning, path = self.quantised_tuning()
        path.write_bytes(b"another")
        for given in (path, None):
            with pytest.raises(ValueError, match="quantised"):
                self.store.put(tuning, given)
        assert self.store.find("a" * 64, MACHINE) == FoundTuning()

    def test_a_place_that_cannot_be_written_is_an_output_error(self) -> None:
        self.block()
        with pytest.raises(OutputError):
            self.store.put(example_tuning())

        with pytest.raises(OutputError):
            self.store.put_comparison("a" * 64, MACHINE, COMPARED)

    def test_a_comparison_is_kept_for_its_model_and_machine_and_is_no_tuning(self) -> None:
        assert self.store.comparison("a" * 64, MACHINE) is None
        self.store.put_comparison("a" * 64, MACHINE, replace(COMPARED, version="openvino 1.0"))
        self.store.put_comparison("a" * 64, MACHINE, COMPARED)
        for store in (self.store, self.make_store()):
            assert store.comparison("a" * 64, MACHINE) == COMPARED
        assert self.store.comparison("b" * 64, MACHINE) is None
        assert self.store.comparison("a" * 64, replace(MACHINE, threads=3)) is None
        assert self.store.find("a" * 64, MACHINE) == FoundTuning()
        assert self.store.find("a" * 64, replace(MACHINE, threads=3)) == FoundTuning()

    def test_a_comparison_that_found_no_number_is_kept(self) -> None:
        self.store.put_comparison("a" * 64, MACHINE, replace(COMPARED, parity=Parity(0.5, (0.0,), float("nan"))))
        kept = self.store.comparison("a" * 64, MACHINE)
        assert kept is not None
        assert not kept.holds()

    @pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe"])
    def test_a_damaged_comparison_is_none(self, content: bytes) -> None:
        self.store.put_comparison("a" * 64, MACHINE, COMPARED)
        (comparison,) = self.comparisons()
        comparison.write_bytes(content)
        assert self.store.comparison("a" * 64, MACHINE) is None

    def comparisons(self) -> list[Path]:
        """The files of all comparisons."""
        raise NotImplementedError

    def block(self) -> None:
        """Make it impossible to write where the store keeps its files."""
        raise NotImplementedError
