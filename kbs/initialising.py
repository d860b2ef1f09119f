"""Making a broker on disk: trust folder, database, certificate, administrator.

Order matters. What is pinned is written last, so that a half-made broker never starts;
nothing that exists is ever replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from kbs.adapters.files import (
    FileHighwater,
    create_folder,
    read_owned,
    write_private,
)
from kbs.adapters.sql.database import connect
from kbs.adapters.sql.migrate import upgrade
from kbs.adapters.tls import certificate_sha256, create_certificate
from kbs.adapters.trust import (
    INSTANCE_NAME,
    KEK_NAME,
    PinnedInstance,
    create_kek,
    read_kek,
    write_instance,
)
from kbs.broker.identity import Identity
from kbs.broker.initialise import (
    create_instance,
    genesis_authority,
    require_unused,
    sign_first_checkpoint,
)
from kbs.broker.mark import MarkKeeper
from kbs.broker.vault import Vault
from kbs.core.clock import SystemClock
from kbs.core.encode import canonical_json, parse_json_object
from kbs.core.errors import ConfigurationError, KbsError
from kbs.core.ids import new_instance_id
from kbs.keys.wrap import LocalKEK
from kbs.settings import Settings

ADMIN_KEY_NAME = "admin.key"
PROFILE_NAME = "profile.json"
RESPONSE_KEY_NAME = "response.pub"
ADMINISTRATOR = "admin"
MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new broker."""

    instance: str
    tls_sha256: str
    response_key: Path


def is_empty(settings: Settings) -> bool:
    """Whether there is neither data nor trust yet: nothing that could be lost."""
    pinned = settings.trust / INSTANCE_NAME
    return not pinned.exists() and not _content(settings.data)


def require_initialised(settings: Settings) -> None:
    """Return if there is a broker to serve.

    Raises:
        ConfigurationError: there is none, or only a part of one.
    """
    pinned = settings.trust / INSTANCE_NAME
    if pinned.exists():
        return
    found = _content(settings.data)
    raise ConfigurationError(
        "trust folder",
        got=f"no {INSTANCE_NAME} in {settings.trust}"
        + (f", beside a data folder with {', '.join(found[:4])}" if found else ""),
        expected="that of the broker whose data this is",
        hint="name it: --trust DIR (and --db URL, if it was made with one); "
        "kbs init makes a new broker in empty folders",
        code="init.missing",
    )


def _content(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def initialise(settings: Settings, *, profile: Path, hosts: Sequence[str] = ()) -> Made:
    """Make a broker where there is none; its certificate is for `hosts` too.

    Raises:
        ConfigurationError: there is one already, or a part of one, or the profile's
            folder is in the data folder; nothing is changed.
        ConflictError: the database has an instance; no key was made.
        UnavailableError: the database does not answer; no key was made.
    """
    _require_empty(settings)
    _require_profile_outside(profile, settings.data)
    _require_profile_free(profile)
    for folder in (settings.data, settings.trust, profile):
        create_folder(folder)
    clock = SystemClock()
    kek_path = settings.trust / KEK_NAME
    database = connect(settings.db, data_dir=settings.data)
    try:
        # Before any key: of a database that cannot be used none stays behind.
        upgrade(database.engine)
        require_unused(database)
        admin = _administrator(profile)
        kek = LocalKEK(
            read_kek(kek_path) if kek_path.exists() else create_kek(kek_path)
        )
        instance = new_instance_id()
        vault = Vault(kek, instance)
        made = create_instance(
            database,
            vault,
            clock,
            instance=instance,
            authority=genesis_authority(ADMINISTRATOR, _spki(admin)),
        )
        identity = Identity(database, vault, clock, instance)
        sign_first_checkpoint(database, identity)
        MarkKeeper(
            database,
            FileHighwater(settings.trust),
            identity,
            genesis_digest=made.genesis_digest,
        ).write()
    finally:
        database.close()
    create_certificate(settings.data, (settings.listen.host, *hosts), clock.now())
    response_key = settings.data / RESPONSE_KEY_NAME
    write_private(response_key, identity.response_public_pem, replace=False)
    _write_profile(profile, identity, settings, admin)
    write_instance(
        settings.trust / INSTANCE_NAME,
        PinnedInstance(instance=instance, genesis=made.genesis_digest),
    )
    return Made(
        instance=instance,
        tls_sha256=certificate_sha256(settings.data),
        response_key=response_key,
    )


def update_profile(settings: Settings, *, profile: Path, url: str) -> Path | None:
    """Note where the broker listens in a profile that belongs to it.

    Returns the profile folder, or None where there is no profile of this instance.
    """
    path = profile / PROFILE_NAME
    try:
        data = read_owned(path, "profile", limit=MAX_FILE_BYTES, private=False)
        document = parse_json_object(data, "profile", limit=MAX_FILE_BYTES)
        pinned = (settings.trust / INSTANCE_NAME).read_bytes()
        instance = parse_json_object(pinned, INSTANCE_NAME, limit=MAX_FILE_BYTES)
    except (KbsError, OSError):
        return None
    if document.get("instance") != instance.get("instance"):
        return None
    changed = {**document, "server": url, "tls_sha256": _pin(settings)}
    if changed != document:
        write_private(path, canonical_json(changed) + b"\n")
    return profile


def _require_empty(settings: Settings) -> None:
    pinned = settings.trust / INSTANCE_NAME
    if pinned.exists():
        raise ConfigurationError(
            "trust folder",
            got=f"{pinned}, of an instance that exists",
            expected="an empty folder",
            hint="kbs serve runs what is there; name other folders for another broker",
            code="init.exists",
        )
    found = _content(settings.data)
    if found:
        raise ConfigurationError(
            "data folder",
            got=f"{settings.data} with {', '.join(found[:4])}, without its trust",
            expected="an empty folder",
            hint="restore the trust folder, or remove what an interrupted init left",
            code="init.half",
        )


def _require_profile_outside(profile: Path, data: Path) -> None:
    inner, outer = profile.resolve(), data.resolve()
    if inner == outer or outer in inner.parents:
        raise ConfigurationError(
            "profile",
            got=f"{profile}, inside the data folder",
            expected=f"a folder outside {data}",
            hint="the administrator's private key is not the broker's to keep: "
            "--profile DIR",
            code="init.profile",
        )


def _require_profile_free(profile: Path) -> None:
    path = profile / PROFILE_NAME
    if path.exists():
        raise ConfigurationError(
            "profile",
            got=f"{path}, of another broker",
            expected="a folder without one",
            hint="name another folder: --profile DIR",
            code="init.profile",
        )


def _administrator(profile: Path) -> Ed25519PrivateKey:
    path = profile / ADMIN_KEY_NAME
    if path.exists():
        data = read_owned(path, "administrator's key", limit=4096, private=True)
        key = load_pem_private_key(data, password=None)
        if isinstance(key, Ed25519PrivateKey):
            return key
        raise ConfigurationError(
            str(path), got=type(key).__name__, expected="an Ed25519 key"
        )
    created = Ed25519PrivateKey.generate()
    write_private(
        path,
        created.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        replace=False,
    )
    return created


def _write_profile(
    profile: Path,
    identity: Identity,
    settings: Settings,
    admin: Ed25519PrivateKey,
) -> None:
    authority = genesis_authority(ADMINISTRATOR, _spki(admin))
    scheme = "http" if settings.plain_http else "https"
    document = {
        "server": f"{scheme}://{settings.listen.authority}",
        "instance": identity.instance,
        "tls_sha256": _pin(settings),
        "log_key": identity.log_vkey,
        "response_key": str((settings.data / RESPONSE_KEY_NAME).resolve()),
        "keyid": authority.administrators[0].keyid,
    }
    write_private(profile / PROFILE_NAME, canonical_json(document) + b"\n")


def _pin(settings: Settings) -> str | None:
    return None if settings.plain_http else certificate_sha256(settings.data)


def _spki(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
