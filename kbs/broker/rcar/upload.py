"""Resources that administrators upload with the RCAR tools: keys like any other.

An upload to a new name makes an opaque key, to a known one its next version; a
deletion retires, since to destroy cannot be taken back (`kbs key destroy`).
"""

from __future__ import annotations

from kbs.broker.actors import Actor, Actors
from kbs.broker.keeping import Keeping
from kbs.core.encode import b64
from kbs.core.errors import ConflictError, ForbiddenError, NotFoundError
from kbs.core.ids import KeyId
from kbs.governance.authority import Role
from kbs.keys.model import KeyKind, KeyState


class RcarUpload:
    """Stores and retires resources for administrators with the key-admin role."""

    def __init__(self, actors: Actors, keeping: Keeping) -> None:
        """Authenticate by `actors`, change keys by `keeping`."""
        self._actors = actors
        self._keeping = keeping

    def store(self, header: str | None, key_id: KeyId, value: bytes) -> None:
        """Make a key, or its next version, from these bytes.

        Raises:
            AuthenticationError: the token is not good.
            ForbiddenError: its owner is no key administrator of the repository.
            MalformedError: the bytes are none that a key can have.
        """
        actor = self._actors.authenticate_upload(header)
        try:
            self._store(actor, key_id, b64(value))
        except ForbiddenError as exc:
            self._actors.forbid(actor, "rcar.upload", exc)
            raise

    def _store(self, actor: Actor, key_id: KeyId, value: str) -> None:
        new: dict[str, object] = {
            "id": str(key_id),
            "kind": KeyKind.OPAQUE.value,
            "value": value,
        }
        try:
            self._keeping.create(actor, new)
        except ConflictError as exc:
            if exc.code != "key.exists":
                raise
            self._keeping.rotate(actor, key_id, {"value": value})

    def delete(self, header: str | None, key_id: KeyId) -> None:
        """Retire the version in use: what asks for the key unnamed gets none.

        Raises:
            AuthenticationError: the token is not good.
            ForbiddenError: its owner is no key administrator of the repository.
            NotFoundError: there is no such key.
        """
        actor = self._actors.authenticate_upload(header)
        try:
            self._delete(actor, key_id)
        except ForbiddenError as exc:
            self._actors.forbid(actor, "rcar.delete", exc)
            raise

    def _delete(self, actor: Actor, key_id: KeyId) -> None:
        actor.require(Role.KEY_ADMIN, key_id.tenant)
        versions = self._keeping.show(actor, key_id)["versions"]
        enabled = [
            one["version"]
            for one in (versions if isinstance(versions, list) else [])
            if one["state"] == KeyState.ENABLED
        ]
        if not enabled:
            raise NotFoundError(f"key {key_id}", got="no version in use")
        for version in enabled:
            self._keeping.retire(actor, key_id, {"version": version})
