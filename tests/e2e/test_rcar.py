"""A guest of Confidential Containers against `kbs serve`, several workers, real TLS."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.fakes.rcar_client import RcarClient
from tests.fakes.rcar_evidence import PATH, POLICY, SECRET
from tests.fakes.served import Folders, kbs, made, serving

GUESTS = 8


def must(folders: Folders, *arguments: str) -> str:
    done = kbs(*arguments, environ={"KBS_PROFILE": str(folders.profile)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_guests_get_what_is_granted_and_the_log_shows_it(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    made(folders)
    policy, secret = tmp_path / "policy.yaml", tmp_path / "secret"
    policy.write_text(POLICY)
    secret.write_bytes(SECRET)
    options = ("--dev", "--workers", "3", "--rate-limit", "0")
    with serving(folders, *options) as served:
        url = ("--server", served.url)
        must(folders, "policy", "register", str(policy), *url)
        must(folders, "key", "import", PATH, str(secret), "--kind", "opaque", *url)
        got: list[bytes] = []
        lines: list[list[str]] = []

        def run() -> None:
            client = RcarClient(served.send)
            got.append(client.fetch(PATH))
            lines.append(client.requests)

        threads = [threading.Thread(target=run) for _ in range(GUESTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [SECRET] * GUESTS
        # Each worker knows the session that another one began.
        assert all(len(one) == 4 for one in lines)
        told = json.loads(
            must(folders, "audit", "query", "--decision", "granted", "--json", *url)
        )
        assert len(told["entries"]) == GUESTS
        assert {one["body"]["door"] for one in told["entries"]} == {"rcar"}
        must(folders, "audit", "verify", *url)
        assert "rcar" in must(
            folders, "audit", "explain", told["entries"][0]["decision"], *url
        )
