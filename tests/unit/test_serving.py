"""What `kbs serve` does before it says that it listens."""

from __future__ import annotations

import socket
import threading

from kbs.serving import _await_listening


def test_nobody_is_told_before_the_port_listens() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
        assert client.connect_ex(address) != 0
        timer = threading.Timer(0.2, server.listen)
        timer.start()
        _await_listening(socket.AF_INET, address)
        timer.join()
        with socket.create_connection(address, timeout=1):
            pass
