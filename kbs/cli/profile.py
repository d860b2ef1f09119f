"""The administrator's profile: a folder with one private key and what it trusts.

`admin.key` (PKCS#8 PEM, Ed25519, readable by its owner only), `profile.json`
(`server`, `instance`, `tls_sha256`, `log_key`, `response_key`, `keyid`) and
`checkpoint`, the last state of the broker's log that was seen from here. A new
administrator's profile has `admin.pub` too, the part of the key that others need.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from kbs.adapters.files import create_folder, write_private
from kbs.artifacts.files import replacing
from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, verify_checkpoint
from kbs.audit.logkey import LogKey, parse_vkey
from kbs.cli.inputs import read_input
from kbs.client.transport import parse_server
from kbs.core.encode import (
    canonical_json,
    parse_hex,
    parse_json_object,
    require_members,
    require_text,
)
from kbs.core.errors import ConflictError, ForbiddenError, MalformedError
from kbs.core.ids import parse_hex32
from kbs.governance.signature import key_id

KEY_FILE = "admin.key"
PUBLIC_FILE = "admin.pub"
PROFILE_FILE = "profile.json"
CHECKPOINT_FILE = "checkpoint"

SECRET_MODE = 0o600

_MAX_FILE = 16 * 1024
_MEMBERS = frozenset(
    {"server", "instance", "tls_sha256", "log_key", "response_key", "keyid"}
)
_HINT = "kbs init makes a profile; --profile DIR or KBS_PROFILE names another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Which broker this administrator governs, and how to know it.

    `server` is None until the broker was served once; `tls_sha256` (hex of the
    certificate's DER) is None for plain HTTP on loopback.
    `response_key` is the file that guests take as `--broker-key`.
    """

    folder: Path
    server: str | None
    instance: str
    tls_sha256: str | None
    log_key: LogKey
    response_key: str
    keyid: str

    def to_json(self) -> dict[str, object]:
        """Return the content of `profile.json`."""
        return {
            "server": self.server,
            "instance": self.instance,
            "tls_sha256": self.tls_sha256,
            "log_key": self.log_key.vkey,
            "response_key": self.response_key,
            "keyid": self.keyid,
        }

    def admin_key(self) -> Ed25519PrivateKey:
        """Read the private key.

        Raises:
            MalformedError: it is not there, or no such key.
            ForbiddenError: others may read it, or it is not the profile's.
        """
        path = self.folder / KEY_FILE
        key = _parse_key(_read_secret(path), path)
        found = key_id(key.public_key())
        if found != self.keyid:
            raise ForbiddenError(
                f"key {path}",
                got=f"key id {found}",
                expected=f"{self.keyid}, as {PROFILE_FILE} says",
                code="profile.key",
            )
        return key

    def last_checkpoint(self) -> tuple[Checkpoint, bytes] | None:
        """Return the last checkpoint seen from here, with its note, if there is one.

        Raises:
            MalformedError: the file is damaged.
            VerificationError: the pinned key did not sign it.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            return None
        note = read_input(path, "checkpoint", limit=MAX_NOTE)
        checkpoint, _ = verify_checkpoint(
            note, origin=self.log_key.origin, keys=[self.log_key]
        )
        return checkpoint, note

    def remember(self, note: bytes) -> None:
        """Keep a verified checkpoint, unless a later one is there by now."""
        checkpoint, _ = verify_checkpoint(
            note, origin=self.log_key.origin, keys=[self.log_key]
        )
        known = self.last_checkpoint()
        if known is not None and known[0].size >= checkpoint.size:
            return
        with replacing(self.folder / CHECKPOINT_FILE, mode=SECRET_MODE) as file:
            file.write(note)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A home that is another user's: whoever asks for health has no profile there.
        return False


def load_profile(folder: Path) -> Profile:
    """Read a profile; its private key is read when it is needed.

    Raises:
        MalformedError: there is none, or it lacks its shape.
    """
    path = folder / PROFILE_FILE
    if not _is_there(path):
        raise MalformedError(
            f"profile {folder}",
            got=f"no {PROFILE_FILE}",
            expected="an administrator's profile",
            hint=_HINT,
            code="profile.missing",
        )
    what = f"profile {path}"
    members = require_members(
        parse_json_object(read_input(path, "profile"), what, limit=_MAX_FILE),
        what,
        required=_MEMBERS,
    )
    server, tls = members["server"], members["tls_sha256"]
    return Profile(
        folder=folder,
        server=None
        if server is None
        else parse_server(require_text(server, f"{what} server")),
        instance=parse_hex32(members["instance"], f"{what} instance"),
        tls_sha256=None
        if tls is None
        else parse_hex(tls, f"{what} tls_sha256", size=32).hex(),
        log_key=parse_vkey(members["log_key"]),
        response_key=require_text(members["response_key"], f"{what} response_key"),
        keyid=parse_hex(members["keyid"], f"{what} keyid", size=32).hex(),
    )


def create_profile(folder: Path, like: Profile) -> Profile:
    """Make a profile of the same broker with a new key; return it.

    Raises:
        ConflictError: one of its files is there; nothing is replaced.
        ConfigurationError: the folder cannot be written.
    """
    for name in (KEY_FILE, PUBLIC_FILE, PROFILE_FILE):
        if os.path.lexists(folder / name):
            raise ConflictError(
                f"profile {folder}",
                got=f"{name}, which exists",
                expected="a new folder",
                code="profile.exists",
            )
    create_folder(folder)
    key = Ed25519PrivateKey.generate()
    made = replace(like, folder=folder, keyid=key_id(key.public_key()))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    # The profile last: without it the folder is none.
    for name, content in (
        (KEY_FILE, private),
        (PUBLIC_FILE, public),
        (PROFILE_FILE, canonical_json(made.to_json()) + b"\n"),
    ):
        write_private(folder / name, content, replace=False)
    return made


def _read_secret(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise MalformedError(
            f"key {path}", got=exc.strerror, expected="the administrator's key"
        ) from exc
    try:
        # Of the open file, not of the path: nothing can be swapped in between.
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or mode & 0o077:
            raise ForbiddenError(
                f"key {path}",
                got=f"mode {mode:04o}",
                expected="a file with mode 0600",
                hint=f"chmod 600 {path}",
                code="profile.mode",
            )
        return os.read(descriptor, _MAX_FILE)
    finally:
        os.close(descriptor)


def _parse_key(data: bytes, path: Path) -> Ed25519PrivateKey:
    expected = "an Ed25519 private key (PKCS#8, PEM, not encrypted)"
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise MalformedError(
            f"key {path}", got="something else", expected=expected
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise MalformedError(f"key {path}", got=type(key).__name__, expected=expected)
    return key
