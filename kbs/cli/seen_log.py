"""The administrator's eye on the log: it only ever grows.

After every statement and every audit command the log's checkpoint is read, its
signature verified under the pinned key, and a proof demanded that it extends the last
one seen from this profile. A log that was rolled back or rewritten is noticed here.
"""

from __future__ import annotations

from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, verify_checkpoint
from kbs.audit.proof import HASH_SIZE, verify_consistency
from kbs.cli.admin_client import AdminClient
from kbs.core.encode import parse_b64, require_list
from kbs.core.errors import MalformedError, UnavailableError, VerificationError

_MAX_PROOF = 64


def follow_log(client: AdminClient) -> Checkpoint:
    """Verify the log's current checkpoint against the last one seen, and keep it.

    Raises:
        VerificationError: the log was rolled back or rewritten, or another key signs.
        UnavailableError: it does not show its checkpoint.
    """
    profile = client.profile
    # Before the new one is asked for, or a faster command beside this one would make
    # ours look old.
    seen = profile.last_checkpoint()
    note = client.get_public("/v1/log/checkpoint").body
    if len(note) > MAX_NOTE:
        raise UnavailableError("checkpoint", got=f"{len(note)} bytes")
    checkpoint, _ = verify_checkpoint(
        note, origin=profile.log_key.origin, keys=[profile.log_key]
    )
    if seen is not None:
        _require_growth(client, seen[0], checkpoint)
    profile.remember(note)
    return checkpoint


def _require_growth(client: AdminClient, seen: Checkpoint, now: Checkpoint) -> None:
    if now.size < seen.size:
        raise VerificationError(
            f"log {now.origin}",
            got=f"{now.size} entries",
            expected=f"at least {seen.size}, which were seen from this profile",
            hint="the broker was rolled back",
            code="audit.rollback",
        )
    proof = _proof(client, seen, now) if 0 < seen.size < now.size else []
    verify_consistency(
        first=seen.size,
        first_root=seen.root,
        second=now.size,
        second_root=now.root,
        proof=proof,
    )


def _proof(client: AdminClient, seen: Checkpoint, now: Checkpoint) -> list[bytes]:
    try:
        answer = client.get(
            "/admin/v1/audit/consistency", {"first": seen.size, "second": now.size}
        )
        listed = require_list(answer.get("proof"), "proof", limit=_MAX_PROOF)
        return [parse_b64(one, "proof", limit=HASH_SIZE) for one in listed]
    except MalformedError as exc:
        # It signed a tree of this size, so that it has to know the proof.
        raise VerificationError(
            f"log {now.origin}",
            got=str(exc),
            expected=f"a proof that {now.size} entries extend {seen.size}",
            code="audit.consistency",
        ) from exc
