"""The profile folder: strict, with a key for its owner only, and the log seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from kbs.audit.checkpoint import Checkpoint, sign_checkpoint
from kbs.audit.logkey import LogSigner
from kbs.cli.profile import load_profile
from kbs.core.errors import ForbiddenError, MalformedError, VerificationError
from kbs.governance.signature import key_id
from tests.fakes.admin_bench import write_key

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
SIGNER = LogSigner("kbs.test/log", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))


def document(**changes: object) -> dict[str, object]:
    return {
        "server": "https://broker.example:8443",
        "instance": "0" * 32,
        "tls_sha256": "a" * 64,
        "log_key": SIGNER.key.vkey,
        "response_key": "/etc/kbs/response.pub",
        "keyid": key_id(KEY.public_key()),
        **changes,
    }


def written(folder: Path, **changes: object) -> Path:
    (folder / "profile.json").write_text(json.dumps(document(**changes)))
    write_key(folder, KEY)
    return folder


def note(size: int, signer: LogSigner = SIGNER) -> bytes:
    return sign_checkpoint(Checkpoint(signer.key.origin, size, b"\x05" * 32), signer)


def test_a_profile_reads_back(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path))
    assert profile.server == "https://broker.example:8443"
    assert profile.log_key == SIGNER.key
    assert profile.admin_key().private_bytes_raw() == KEY.private_bytes_raw()


def test_server_and_certificate_may_be_unknown(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, server=None, tls_sha256=None))
    assert (profile.server, profile.tls_sha256) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"server": "ftp://x"},
        {"server": 1},
        {"server": "http://broker.example"},
        {"instance": "0" * 31},
        {"tls_sha256": "a" * 63},
        {"log_key": "x"},
        {"response_key": None},
        {"keyid": "A" * 64},
        {"another": 1},
    ],
)
def test_a_profile_is_strict(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        load_profile(written(tmp_path, **changes))


def test_no_profile_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="kbs init"):
        load_profile(tmp_path)


def test_a_profile_that_cannot_be_looked_for_is_none(tmp_path: Path) -> None:
    # Like a home that is another user's, and root's eyes cannot see past this one.
    with pytest.raises(MalformedError) as caught:
        load_profile(tmp_path / ("x" * 300))
    assert caught.value.code == "profile.missing"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o001])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    profile = load_profile(written(tmp_path))
    (tmp_path / "admin.key").chmod(mode)
    with pytest.raises(ForbiddenError, match="chmod 600"):
        profile.admin_key()


def test_a_key_that_is_not_the_profiles_is_refused(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path))
    write_key(tmp_path, Ed25519PrivateKey.generate())
    with pytest.raises(ForbiddenError, match="as profile"):
        profile.admin_key()


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path))
    path = tmp_path / "admin.key"
    path.write_bytes(b"nothing")
    with pytest.raises(MalformedError, match="Ed25519"):
        profile.admin_key()
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(MalformedError, match="Ed25519"):
        profile.admin_key()
    path.unlink()
    with pytest.raises(MalformedError, match="No such file"):
        profile.admin_key()
    path.mkdir(mode=0o700)
    with pytest.raises((ForbiddenError, MalformedError)):
        profile.admin_key()


def test_the_last_checkpoint_never_goes_back(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path))
    assert profile.last_checkpoint() is None
    profile.remember(note(5))
    profile.remember(note(3))
    last = profile.last_checkpoint()
    assert last is not None
    assert last[0].size == 5
    profile.remember(note(8))
    assert (tmp_path / "checkpoint").read_bytes() == note(8)
    assert (tmp_path / "checkpoint").stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_of_another_key_is_never_kept(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path))
    other = LogSigner("kbs.test/log", Ed25519PrivateKey.generate())
    with pytest.raises(VerificationError):
        profile.remember(note(5, other))
    (tmp_path / "checkpoint").write_bytes(note(5, other))
    with pytest.raises(VerificationError):
        profile.last_checkpoint()
