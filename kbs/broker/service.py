"""The use cases of one broker, put together by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from kbs.broker.actors import Actors
from kbs.broker.auditing import Auditing
from kbs.broker.collateral import CollateralTable
from kbs.broker.enrol import Enrolment
from kbs.broker.explain import Explaining
from kbs.broker.govern import Governing
from kbs.broker.health import Health
from kbs.broker.identity import Identity
from kbs.broker.keeping import Keeping
from kbs.broker.rcar.attest import RcarAttestation
from kbs.broker.rcar.fetch import RcarFetch
from kbs.broker.rcar.upload import RcarUpload
from kbs.broker.release import Release
from kbs.core.clock import Clock, format_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Rcar:
    """The use cases of the RCAR door."""

    attestation: RcarAttestation
    fetch: RcarFetch
    upload: RcarUpload


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """What the front doors call; each member is one group of use cases."""

    identity: Identity
    clock: Clock
    development: bool
    release: Release
    rcar: Rcar
    enrolment: Enrolment
    actors: Actors
    governing: Governing
    explaining: Explaining
    keeping: Keeping
    collateral: CollateralTable
    audit: Auditing
    health: Health

    def describe(self) -> dict[str, object]:
        """Return who this broker is; information, not trust."""
        return {
            "instance": self.identity.instance,
            "audience": self.identity.origin,
            "response_key": self.identity.response_public_pem.decode("ascii"),
            "log_key": self.identity.log_vkey,
            "time": format_time(self.clock.now()),
            "development": self.development,
        }
