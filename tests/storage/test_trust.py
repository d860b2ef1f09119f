"""The trust folder: where it is, and what may lie in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.adapters.tls import CERTIFICATE_NAME, certificate_sha256
from kbs.adapters.trust import (
    PinnedInstance,
    create_kek,
    parse_instance,
    read_instance,
    read_kek,
    trust_folder_default,
    url_without_credentials,
    write_instance,
)
from kbs.core.errors import ConfigurationError, MalformedError

PINNED = PinnedInstance("0123456789abcdef" * 2, "ab" * 32)


def test_a_kek_is_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    kek = create_kek(path)
    assert kek.size == 32
    assert read_kek(path) == kek
    assert path.read_bytes() == kek.reveal()
    with pytest.raises(ConfigurationError, match="got a file that exists"):
        create_kek(path)
    assert read_kek(path) == kek


def test_two_keks_differ(tmp_path: Path) -> None:
    assert create_kek(tmp_path / "a") != create_kek(tmp_path / "b")


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_a_kek_has_32_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "kek"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="expected 32 bytes"):
        read_kek(path)


def test_a_kek_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    create_kek(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError) as caught:
        read_kek(path)
    assert str(caught.value) == (
        f"kek {path}: mode: got 0644, expected 0600 (chmod 600 {path})"
    )


def test_an_instance_is_pinned_once(tmp_path: Path) -> None:
    path = tmp_path / "instance.json"
    write_instance(path, PINNED)
    assert read_instance(path) == PINNED
    assert json.loads(path.read_bytes()) == {
        "instance": PINNED.instance,
        "genesis": PINNED.genesis,
    }
    with pytest.raises(ConfigurationError, match="got a file that exists"):
        write_instance(path, PINNED)


@pytest.mark.parametrize(
    "changes",
    [
        {"instance": None},
        {"instance": "0123"},
        {"instance": PINNED.instance.upper()},
        {"genesis": None},
        {"genesis": "ab" * 31},
        {"genesis": "AB" * 32},
        {"genesis": 7},
        {"more": ""},
    ],
)
def test_another_instance_file_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    document = {"instance": PINNED.instance, "genesis": PINNED.genesis, **changes}
    kept = {name: value for name, value in document.items() if value is not None}
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(kept))
    with pytest.raises(ConfigurationError, match=r"instance\.json"):
        read_instance(path)


def test_a_missing_instance_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_instance(tmp_path / "instance.json")


@given(st.binary(max_size=200) | st.text(alphabet='{}":,0aingestc ').map(str.encode))
def test_any_bytes_are_an_instance_or_malformed(content: bytes) -> None:
    try:
        pinned = parse_instance(content)
    except MalformedError:
        return
    assert json.loads(content) == {
        "instance": pinned.instance,
        "genesis": pinned.genesis,
    }


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_every_instance_comes_back(instance: bytes, genesis: bytes) -> None:
    document = {"instance": instance.hex(), "genesis": genesis.hex()}
    assert parse_instance(json.dumps(document).encode()) == PinnedInstance(
        instance.hex(), genesis.hex()
    )


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("uid", "environ", "parent"),
    [
        (0, {"XDG_CONFIG_HOME": "/x"}, "/etc/kbs"),
        (1000, {"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/kbs"),
        (1000, {"XDG_CONFIG_HOME": "", "HOME": "/h"}, "/h/.config/kbs"),
        (1000, {"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/kbs"),
        (1000, {"HOME": "/h"}, "/h/.config/kbs"),
    ],
)
def test_the_default_folder_is_named_by_the_real_path_of_the_data(
    tmp_path: Path, uid: int, environ: Mapping[str, str], parent: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    found = {
        trust_folder_default(path, None, environ=environ, uid=uid)
        for path in (data, tmp_path / "link", tmp_path / "." / "data" / ".." / "data")
    }
    assert found == {Path(parent) / _name(str(data.resolve()))}


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_a_home_the_folder_must_be_named(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match="--trust DIR"):
        trust_folder_default(tmp_path, None, environ=environ, uid=1000)


def test_a_fleets_folder_is_named_by_the_url_alone(tmp_path: Path) -> None:
    urls = ("postgresql://u:sEcret@h/d", "postgresql://v@h/d", "postgresql://h/d")
    folders = {
        trust_folder_default(tmp_path / str(number), url, environ={}, uid=0)
        for number, url in enumerate(urls)
    }
    assert folders == {Path("/etc/kbs") / _name("postgresql://h/d")}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql://u@h:5432/d", "postgresql://h:5432/d"),
        ("postgresql://u:p@h/d", "postgresql://h/d"),
        ("postgresql://u:p/w?x@h/d", "postgresql://h/d"),
        ("postgresql://:p@h/d", "postgresql://h/d"),
        ("postgres://u:p@[::1]:5432/d", "postgres://[::1]:5432/d"),
        ("postgresql:///d", "postgresql:///d"),
        ("postgresql+psycopg://u:p@/d", "postgresql+psycopg:///d"),
        (
            "postgresql://h/d?user=u&password=p&host=%2Frun%2Fp",
            "postgresql://h/d?host=%2Frun%2Fp",
        ),
        ("postgresql://h/d?pass%77ord=p", "postgresql://h/d"),
        (
            "postgresql://h/d?sslpassword=p&sslmode=require",
            "postgresql://h/d?sslmode=require",
        ),
    ],
)
def test_credentials_leave_a_url_and_nothing_else_does(url: str, expected: str) -> None:
    assert url_without_credentials(url) == expected


def test_what_is_no_url_has_no_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        url_without_credentials("u:sEcret")
    assert "sEcret" not in str(caught.value)


def test_a_tls_certificate_that_is_none_is_told_in_our_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="got No such file"):
        certificate_sha256(tmp_path)
    (tmp_path / CERTIFICATE_NAME).write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match="got no certificate, or a damaged"):
        certificate_sha256(tmp_path)
