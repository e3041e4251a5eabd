"""A trap for what a process would send to other machines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Trap:
    """A proxy that every outgoing HTTP connection would go through; it hangs up on all and remembers them."""

    listener: socket.socket
    caught: list[bytes] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead there."""
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), url)

    def watch(self) -> None:
        """Catch connections until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.caught.append(connection.recv(200))


@contextmanager
def set_trap() -> Iterator[Trap]:
    """A trap that is open for a while."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trap = Trap(listener)
        thread = threading.Thread(target=trap.watch, daemon=True)
        thread.start()
        yield trap
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
