"""HTTP connections on which the head of an answer comes in time, or not at all.

A time-out of a socket is one for each packet. A service that sends its headers byte by
byte would hold whoever asks for hours, and with them whoever waits for their lock.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Prompt(HTTPConnection):
    """Takes the head of an answer in the time that one packet may take."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Return the answer, its body not yet read.

        Raises:
            TimeoutError: its head did not come in time.
        """
        late = threading.Event()
        held, seconds = self.sock, self.timeout

        def give_up() -> None:
            late.set()
            with suppress(OSError):
                # The plain socket's: a TLS one takes itself apart while it is read.
                socket.socket.shutdown(held, socket.SHUT_RDWR)

        timer = threading.Timer(seconds or 0, give_up)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        finally:
            timer.cancel()
        if late.is_set():
            # Headers that were cut look as if these were all.
            response.close()
            message = f"no end of its headers in {seconds:g} s"
            raise TimeoutError(message)
        return response


class _PromptTLS(_Prompt, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Prompt


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _PromptTLS


class PromptAdapter(HTTPAdapter):
    """Connects by these, through a proxy too."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools of connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _Pool, "https": _PoolTLS}
