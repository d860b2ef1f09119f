"""The trust folder: what is pinned outside the database (`contract.md`, section 1).

`kek`, `instance.json` and `highwater` lie in it, never inside the data folder, so that
a copy of the data opens nothing and a changed database is noticed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kbs.adapters.files import read_owned, write_private
from kbs.core.encode import (
    canonical_json,
    parse_hex,
    parse_json_object,
    require_members,
)
from kbs.core.errors import ConfigurationError, MalformedError
from kbs.core.ids import parse_hex32
from kbs.keys.secret import Secret
from kbs.keys.wrap import KEK_SIZE, generate_kek

KEK_NAME = "kek"
INSTANCE_NAME = "instance.json"

_MAX_INSTANCE_BYTES = 4096
_DIGEST_SIZE = 32
_TRUST_NAME_DIGITS = 16

# Scheme, credentials, the rest up to the query, the query.
_URL = re.compile(r"([\w+.-]+://)(?:[^:/@]*(?::[^@]*)?@)?([^?]*)(?:\?(.*))?", re.ASCII)
# Parameters that are credentials (PostgreSQL 15, section 34.1.2).
_CREDENTIALS = frozenset({"user", "password", "passfile", "sslpassword"})


@dataclass(frozen=True, slots=True)
class PinnedInstance:
    """What is pinned outside the database: who it belongs to, and its first authority.

    `genesis` is the hex SHA-256 of the genesis authority document.
    """

    instance: str
    genesis: str


def create_kek(path: Path) -> Secret:
    """Make a key-encryption key of 32 random bytes; an existing one is never replaced.

    Raises:
        ConfigurationError: there is one, or it cannot be written.
    """
    kek = generate_kek()
    write_private(path, kek.reveal(), replace=False)
    return kek


def read_kek(path: Path) -> Secret:
    """Read the key-encryption key: 32 bytes, mode 0600, our own.

    Raises:
        ConfigurationError: anything else.
    """
    content = read_owned(path, "kek", limit=KEK_SIZE + 1, private=True)
    if len(content) != KEK_SIZE:
        raise ConfigurationError(
            f"kek {path}", got=f"{len(content)} bytes", expected=f"{KEK_SIZE} bytes"
        )
    return Secret(content)


def write_instance(path: Path, pinned: PinnedInstance) -> None:
    """Pin an instance; what is pinned is never replaced.

    Raises:
        ConfigurationError: one is pinned already, or it cannot be written.
    """
    document = {"instance": pinned.instance, "genesis": pinned.genesis}
    write_private(path, canonical_json(document) + b"\n", replace=False)


def read_instance(path: Path) -> PinnedInstance:
    """Read the pinned instance.

    Raises:
        ConfigurationError: it is missing, another's, or not of this shape.
    """
    content = read_owned(path, "instance", limit=_MAX_INSTANCE_BYTES + 1, private=False)
    try:
        return parse_instance(content)
    except MalformedError as exc:
        raise ConfigurationError(
            f"instance {path}",
            got=str(exc),
            expected='{"instance": 32 hex digits, "genesis": 64 hex digits}',
            hint="restore it from a copy; it is not made anew for an old database",
        ) from exc


def parse_instance(content: bytes) -> PinnedInstance:
    """Parse `instance.json`.

    Raises:
        MalformedError: other members, or other values.
    """
    document = parse_json_object(content, INSTANCE_NAME, limit=_MAX_INSTANCE_BYTES)
    members = require_members(document, INSTANCE_NAME, required={"instance", "genesis"})
    genesis = parse_hex(members["genesis"], "genesis", size=_DIGEST_SIZE)
    return PinnedInstance(parse_hex32(members["instance"], "instance"), genesis.hex())


def trust_folder_default(
    data_dir: Path, url: str | None, *, environ: Mapping[str, str], uid: int
) -> Path:
    """Return the trust folder of a database: below /etc for root, else the user's.

    Raises:
        ConfigurationError: there is no folder for settings.
    """
    if url is None:
        named = os.fsencode(data_dir.resolve())
    else:
        named = url_without_credentials(url).encode("utf-8", "surrogateescape")
    name = hashlib.sha256(named).hexdigest()[:_TRUST_NAME_DIGITS]
    if uid == 0:
        return Path("/etc/kbs") / name
    return _config_home(environ) / "kbs" / name


def url_without_credentials(url: str) -> str:
    """Return a database's URL without user and password, wherever they stand.

    Raises:
        ConfigurationError: it is no URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(
            "database URL", got="no URL", expected="postgresql://USER@HOST/DATABASE"
        )
    scheme, rest, query = match.groups()
    kept = [
        part
        for part in (query or "").split("&")
        if part and unquote(part.partition("=")[0]) not in _CREDENTIALS
    ]
    return scheme + rest + ("?" + "&".join(kept) if kept else "")


def _config_home(environ: Mapping[str, str]) -> Path:
    # XDG Base Directory Specification 0.8: a relative path is to be ignored.
    named = Path(environ.get("XDG_CONFIG_HOME", ""))
    if named.is_absolute():
        return named
    home = Path(environ.get("HOME", ""))
    if home.is_absolute():
        return home / ".config"
    raise ConfigurationError(
        "trust folder",
        got="neither XDG_CONFIG_HOME nor HOME",
        expected="one of them as an absolute path",
        hint="or name the folder: --trust DIR",
    )
