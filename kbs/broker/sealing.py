"""Step 6 of a release: what the answer says, with the granted keys sealed in it."""

from __future__ import annotations

from kbs.broker.attest import Asked, Attested
from kbs.broker.decide import KeyOutcome
from kbs.broker.outcomes import released_ref, withheld
from kbs.broker.vault import Vault
from kbs.channel.answer import Answer, Outcome, ReleasedKey, seal_keys
from kbs.channel.binding import Mode
from kbs.core.errors import UnavailableError


class Sealer:
    """Opens keys that were granted and seals them to the key inside the evidence."""

    def __init__(self, vault: Vault) -> None:
        """Open keys with this vault."""
        self._vault = vault

    def answer(
        self,
        attested: Attested[Asked],
        decision: str,
        outcomes: tuple[KeyOutcome, ...],
        leaving: tuple[KeyOutcome, ...],
    ) -> Answer:
        """Return the answer of a decision; a dry run has no keys in it.

        Raises:
            UnavailableError: a key cannot be opened.
        """
        runtime_data = attested.asked.runtime_data
        is_check = runtime_data.request.mode is Mode.CHECK
        outcome = Outcome.GRANTED if leaving else Outcome.DENIED
        sealed = None
        if is_check and outcomes:
            outcome = Outcome.CHECKED
        elif leaving:
            sealed = self._seal(attested, decision, leaving)
        return Answer(
            audience=runtime_data.audience,
            nonce=runtime_data.nonce,
            decision=decision,
            time=attested.now,
            outcome=outcome,
            suite=runtime_data.request.suite,
            keys=tuple(released_ref(one) for one in leaving),
            denied=withheld(attested, outcomes, leaving),
            sealed=sealed,
        )

    def _seal(
        self, attested: Attested[Asked], decision: str, leaving: tuple[KeyOutcome, ...]
    ) -> bytes:
        primary = attested.result.binding
        if primary is None:
            raise UnavailableError("seal", got="no verified binding")
        released = [
            ReleasedKey(released_ref(one), self._vault.open_key(one.stored).reveal())
            for one in leaving
            if one.stored is not None
        ]
        return seal_keys(
            released,
            runtime_data=attested.asked.runtime_data,
            primary=primary,
            decision=decision,
        )
