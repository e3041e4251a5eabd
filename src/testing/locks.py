"""Contract suite of `Locks`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ..ports.locks import Locks


class LocksContract:
    """Subclass and implement the hook. Two ``Locks`` represent two processes."""

    def make_locks(self) -> Locks:
        """Return an adapter; all adapters of one test share their locks."""
        raise NotImplementedError

    def test_one_holds_a_lock_at_a_time(self, tmp_path: Path) -> None:
        one, other = self.make_locks(), self.make_locks()
        with one.hold(tmp_path / "lock", wait=False) as first, other.hold(tmp_path / "lock", wait=False) as second:
            assert (first, second) == (True, False)
        with other.hold(tmp_path / "lock", wait=False) as again:
            assert again

    def test_a_lock_is_released_where_its_block_fails(self, tmp_path: Path) -> None:
        locks = self.make_locks()
        with pytest.raises(RuntimeError, match="failed"), locks.hold(tmp_path / "lock"):
            raise RuntimeError("failed")
        with locks.hold(tmp_path / "lock", wait=False) as held:
            assert held

    def test_locks_of_other_names_are_independent(self, tmp_path: Path) -> None:
        locks = self.make_locks()
        with locks.hold(tmp_path / "a" / "lock") as first, locks.hold(tmp_path / "b" / "lock", wait=False) as second:
            assert first
            assert second

    def test_the_file_is_made_with_its_folders(self, tmp_path: Path) -> None:
        with self.make_locks().hold(tmp_path / "new" / "folder" / "lock") as held:
            assert held
            assert (tmp_path / "new" / "folder").is_dir()

    def test_whoever_waits_holds_the_lock_once_it_is_released(self, tmp_path: Path) -> None:
        one, other, order = self.make_locks(), self.make_locks(), list[str]()

        def wait() -> None:
            with other.hold(tmp_path / "lock") as held:
                order.append(f"second {held}")

        thread = threading.Thread(target=wait)
        with one.hold(tmp_path / "lock"):
            thread.start()
            thread.join(0.05)
            order.append("first")
        thread.join()
        assert order == ["first", "second True"]
