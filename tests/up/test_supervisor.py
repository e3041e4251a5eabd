"""Children that crash, hang, leave processes behind, or lose their parent; all of them real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from voxport.domain.errors import OutputError, VoxportError
from voxport.entrypoints.up import tether
from voxport.entrypoints.up.answering import answers
from voxport.entrypoints.up.supervisor import Child, Restarts, Supervisor
from voxport.testing.job_queue import wait_until

from tests.rest.serving import free_port

QUICK = Restarts(first_seconds=0.01, longest_seconds=0.02, most=3, steady_seconds=60, settle_seconds=0)
NOTE = "import os, pathlib, signal, sys\nnotes = pathlib.Path(sys.argv[1])\n"
STARTED = "with notes.open('a') as f: f.write(f'{os.getpid()}\\n')\n"
# a signal that comes before it is waited for is kept until then
WAIT = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
UNTIL_TOLD = "signal.sigwait({signal.SIGTERM})\n"


class Tried:
    """A child that runs a script which notes its process ids, and what was said of it."""

    def __init__(self, folder: Path, script: str, name: str = "child") -> None:
        self.notes, self.logs, self.said = folder / f"{name}.notes", folder / "logs", list[str]()
        self.child = Child(name, [sys.executable, "-c", NOTE + script, str(self.notes)])

    def supervisor(self, restarts: Restarts = QUICK) -> Supervisor:
        return Supervisor([self.child], self.logs, self.said.append, restarts)

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.notes.read_text(encoding="utf-8").split()] if self.notes.exists() else []


def soon(condition: Callable[[], bool]) -> Callable[[], bool]:
    """The condition, which fails the test where it never comes about."""
    deadline = time.monotonic() + 60

    def check() -> bool:
        assert time.monotonic() < deadline
        return condition()

    return check


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_that_crashes_is_started_again(tmp_path: Path) -> None:
    tried = Tried(tmp_path, f"{WAIT}again = notes.exists()\n{STARTED}if not again: sys.exit(7)\n{UNTIL_TOLD}")
    with tried.supervisor() as supervisor:
        supervisor.watch(soon(lambda: len(tried.pids) == 2 and not supervisor.waits_for))
    assert tried.said == [
        f"child ended (exit code 7); it starts again in 0.01 s; its log is {tmp_path / 'logs' / 'child.log'}",
        "child is back",
    ]
    assert all(is_gone(pid) for pid in tried.pids)


def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    tried = Tried(tmp_path, WAIT + STARTED + UNTIL_TOLD)
    with tried.supervisor() as supervisor:
        supervisor.watch(soon(lambda: len(tried.pids) == 1))
        os.kill(tried.pids[0], signal.SIGKILL)
        supervisor.watch(soon(lambda: len(tried.pids) == 2))
    assert "signal 9, Killed" in tried.said[0]


def test_a_child_that_always_crashes_is_given_up(tmp_path: Path) -> None:
    tried = Tried(tmp_path, f"{STARTED}sys.exit('the disk is on fire')")
    with (
        pytest.raises(VoxportError, match="child: expected a process that goes on, got exit code 1, 3 times in a row"),
        tried.supervisor() as supervisor,
    ):
        supervisor.watch(soon(lambda: False))
    assert len(tried.pids) == 3
    assert "the disk is on fire" in tried.said[-1]
    waits = [line.partition("again in ")[2][:4] for line in tried.said if "again in" in line]
    assert waits == ["0.01", "0.02"]


def test_a_child_that_was_called_wrongly_is_given_up_at_once(tmp_path: Path) -> None:
    tried = Tried(tmp_path, f"{STARTED}sys.exit(2)")
    with pytest.raises(VoxportError, match="got exit code 2;"), tried.supervisor() as supervisor:
        supervisor.watch(soon(lambda: False))
    assert len(tried.pids) == 1


def test_ends_after_a_steady_run_are_not_in_a_row(tmp_path: Path) -> None:
    tried = Tried(tmp_path, f"{STARTED}sys.exit(1)")
    with tried.supervisor(Restarts(first_seconds=0.01, most=2, steady_seconds=0)) as supervisor:
        supervisor.watch(soon(lambda: len(tried.pids) >= 4))


def test_a_child_is_told_to_end_and_awaited(tmp_path: Path) -> None:
    tried = Tried(tmp_path, f"{WAIT}{STARTED}{UNTIL_TOLD}print('packed up', flush=True)")
    with tried.supervisor() as supervisor:
        supervisor.watch(soon(lambda: len(tried.pids) == 1))
    assert (tried.logs / "child.log").read_text(encoding="utf-8") == "packed up\n"
    assert tried.said == []


@pytest.mark.parametrize("hurried", [False, True])
def test_a_child_that_does_not_end_is_killed(tmp_path: Path, hurried: bool) -> None:
    """After a while, or at once where whoever waits is in a hurry."""
    tried = Tried(tmp_path, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{STARTED}while True: signal.pause()")
    with tried.supervisor(Restarts(grace_seconds=1e6 if hurried else 0.1)) as supervisor:
        supervisor.watch(soon(lambda: len(tried.pids) == 1))
        supervisor.hurry = hurried
    assert tried.said == ["child does not end; it is killed"]
    assert is_gone(tried.pids[0])


def test_what_a_killed_child_leaves_behind_is_ended(tmp_path: Path) -> None:
    """As a server's processes would go on to hold its port; also those in a session of their own."""
    started = "import subprocess\nleft = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    noted = "with notes.open('a') as f: f.write(f'{left.pid}\\n{os.getpid()}\\n')\n"
    tried = Tried(tmp_path, WAIT + started + noted + UNTIL_TOLD)
    with tried.supervisor() as supervisor:
        supervisor.watch(soon(lambda: len(tried.pids) == 2))
        os.kill(tried.pids[1], signal.SIGKILL)
        supervisor.watch(soon(lambda: len(tried.pids) == 4))
        assert is_gone(tried.pids[0])
    assert all(is_gone(pid) for pid in tried.pids)


def test_other_children_of_the_process_are_left_alone(tmp_path: Path) -> None:
    tried = Tried(tmp_path, WAIT + STARTED + UNTIL_TOLD)
    with subprocess.Popen(["sleep", "1000"]) as other:
        with tried.supervisor() as supervisor:
            supervisor.watch(soon(lambda: len(tried.pids) == 1))
        assert other.poll() is None
        other.kill()


def test_a_child_is_waited_for_until_it_answers(tmp_path: Path) -> None:
    port, script = (
        free_port(),
        (
            "import http.server\n"
            "class Handler(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200 if notes.exists() else 503)\n"
            "        self.end_headers()\n"
            "http.server.HTTPServer(('127.0.0.1', int(sys.argv[2])), Handler).serve_forever()\n"
        ),
    )
    tried = Tried(tmp_path, script)
    url = f"http://127.0.0.1:{port}/ready"
    child = Child("child", [*tried.child.command, str(port)], url)
    log = tried.logs / "child.log"
    with Supervisor([child], tried.logs, tried.said.append, QUICK) as supervisor:
        supervisor.watch(soon(lambda: '"GET /ready HTTP/1.1" 503' in log.read_text(encoding="utf-8")))
        assert supervisor.waits_for == ["child"]
        tried.notes.touch()
        supervisor.watch(soon(lambda: supervisor.waits_for == []))
    assert not answers(url)


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    tried = Tried(tmp_path, WAIT + STARTED + UNTIL_TOLD)
    parent = (
        "import sys, pathlib\nfrom voxport.entrypoints.up.supervisor import Child, Supervisor\n"
        "child = Child('child', sys.argv[2:])\n"
        "with Supervisor([child], pathlib.Path(sys.argv[1]), print) as supervisor:\n"
        "    supervisor.watch(lambda: False)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(tried.logs), *tried.child.command]) as process:
        wait_until(lambda: len(tried.pids) == 1)
        process.kill()
        wait_until(lambda: is_gone(tried.pids[0]))


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    tried = Tried(tmp_path, f"{STARTED}print(len(notes.read_text().split()), flush=True)\nsignal.pause()")
    for runs in (1, 2, 3):
        with tried.supervisor() as supervisor:
            supervisor.watch(soon(partial(_has, tried.logs / "child.log", f"{runs}\n")))
    assert {path.name: path.read_text(encoding="utf-8") for path in tried.logs.iterdir()} == {
        "child.log": "3\n",
        "child.log.1": "2\n",
    }


def _has(path: Path, text: str) -> bool:
    return text in path.read_text(encoding="utf-8")


def test_variables_of_a_child_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "ours")
    child = Child("child", ["sh", "-c", "echo $ONE $TWO; exec sleep 1000"], environment={"TWO": "its"})
    with Supervisor([child], tmp_path, print, QUICK) as supervisor:
        supervisor.watch(soon(lambda: (tmp_path / "child.log").read_text(encoding="utf-8") == "ours its\n"))
    assert "TWO" not in os.environ


@pytest.mark.parametrize("blocked", ["logs", "logs/child.log"])
def test_logs_that_cannot_be_written_are_one_line(tmp_path: Path, blocked: str) -> None:
    tried = Tried(tmp_path, STARTED)
    if blocked == "logs":
        tried.logs.touch()
    else:
        (tmp_path / blocked).mkdir(parents=True)
        (tmp_path / f"{blocked}.1").touch()
    with pytest.raises(OutputError, match="logs"), tried.supervisor():
        pass
    assert tried.pids == []


@pytest.mark.parametrize("orphaned", [False, True])
def test_a_command_is_not_run_for_a_parent_that_is_gone(monkeypatch: pytest.MonkeyPatch, orphaned: bool) -> None:
    run = list[tuple[str, list[str]]]()
    monkeypatch.setattr(os, "execvp", lambda file, command: run.append((file, command)))
    monkeypatch.setattr(tether, "_prctl", lambda *_: None)
    if orphaned:
        with pytest.raises(SystemExit):
            tether._become(os.getppid() + 1, ["sleep", "1"])
    else:
        tether._become(os.getppid(), ["sleep", "1"])
    assert run == ([] if orphaned else [("sleep", ["sleep", "1"])])
