"""Connections as `kbs.client.transport` wants them; apart, for their slow imports."""

from __future__ import annotations

from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies


class _PinnedAdapter(HTTPAdapter):
    def __init__(self, tls_sha256: str | None) -> None:
        # Before the base class, whose constructor makes the pools.
        self._tls_sha256 = tls_sha256
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        pinned = {**options, "assert_fingerprint": self._tls_sha256}
        super().init_poolmanager(*args, **pinned)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        pinned = {**options, "assert_fingerprint": self._tls_sha256}
        return super().proxy_manager_for(proxy, **pinned)


def new_session(
    server: str, *, tls_sha256: str | None, direct: bool
) -> requests.Session:
    """Return a session that pins this certificate; `direct` is without a proxy."""
    # Once per request, it would tell every user what the transport says at its top.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    session = requests.Session()
    # Neither .netrc nor CA bundles from the environment; proxies are taken below.
    session.trust_env = False
    if not direct:
        session.proxies.update(get_environ_proxies(server))
    session.mount("https://", _PinnedAdapter(tls_sha256))
    session.headers["User-Agent"] = "kbs"
    return session
