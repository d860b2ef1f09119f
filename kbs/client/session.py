"""Connections as `kbs.client.transport` wants them; apart, for their slow imports."""

from __future__ import annotations

from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies


def new_session(
    server: str, *, tls_sha256: str | None, direct: bool
) -> requests.Session:
    """Return a session that pins this certificate; `direct` is without a proxy."""
    # Once per request, it would tell every user what the transport says at its top.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    class PinnedAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, assert_fingerprint=tls_sha256)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            options["assert_fingerprint"] = tls_sha256
            return super().proxy_manager_for(proxy, **options)

    session = requests.Session()
    # Neither .netrc nor CA bundles from the environment; proxies are taken below.
    session.trust_env = False
    if not direct:
        session.proxies.update(get_environ_proxies(server))
    session.mount("https://", PinnedAdapter())
    session.headers["User-Agent"] = "kbs"
    return session
