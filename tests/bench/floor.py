"""The crypto floor: what the primitives of a release cost, with nothing around them.

Links between certificates are remembered by the broker (`kbs.pki.cache`), and a report
is verified each time: that one P-384 verification is the floor of SNP evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kbs.channel.hpke import seal
from kbs.channel.jwe import encrypt_jwe
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.channel.tee_key import parse_tee_key
from kbs.pki.ecdsa import is_p384_signature
from tests.bench.exchanges import Kind
from tests.bench.tables import Section
from tests.bench.unit import MESSAGE, in_units, verify
from tests.fakes.rcar_client import jwk_of

KEY = bytes(32)
REPORT = bytes(0x2A0)

Costs = Mapping[str, tuple[float, float]]
"""CPU seconds and units, by what costs them."""

P256 = "P-256 verification (the unit)"
P384 = "P-384 verification"
RSA2048 = "RSA-2048 verification"
HPKE = "HPKE seal, X25519 and AES-256-GCM"
JWE = "JWE seal, P-256 and AES-256-GCM"
ES256 = "ES256 signature of a token"
ED25519 = "Ed25519 signature"

# What each exchange cannot do without. Ed25519: challenge, answer and checkpoint of v1;
# the checkpoint of rcar, whose challenge and cookie are MACed.
NEEDED: Mapping[Kind, Mapping[str, int]] = {
    Kind.V1_SAMPLE: {HPKE: 1, ED25519: 3},
    Kind.V1_SNP: {P384: 1, HPKE: 1, ED25519: 3},
    Kind.RCAR_SAMPLE: {JWE: 1, ES256: 1, ED25519: 1},
    Kind.RCAR_SNP: {P384: 1, JWE: 1, ES256: 1, ED25519: 1},
}


def primitives() -> dict[str, Callable[[], object]]:
    """Each primitive, ready to be called."""
    report_key = ec.generate_private_key(ec.SECP384R1())
    signature = report_key.sign(REPORT, ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(signature)
    recipient = recipient_of(generate_recipient_key(Suite.X25519))
    assert isinstance(recipient.key, x25519.X25519PublicKey)
    guest = ec.generate_private_key(ec.SECP256R1())
    tee_key = parse_tee_key(jwk_of(guest))
    log_key = Ed25519PrivateKey.generate()
    public = report_key.public_key()
    quote_key = rsa.generate_private_key(65537, 2048)
    quoted = quote_key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    rsa_public = quote_key.public_key()
    return {
        P256: verify,
        P384: lambda: is_p384_signature(public, r, s, REPORT),
        RSA2048: lambda: rsa_public.verify(
            quoted, MESSAGE, padding.PKCS1v15(), hashes.SHA256()
        ),
        HPKE: lambda: seal(Suite.X25519, recipient, KEY, info=MESSAGE),
        JWE: lambda: encrypt_jwe(tee_key, KEY),
        ES256: lambda: guest.sign(MESSAGE, ec.ECDSA(hashes.SHA256())),
        ED25519: lambda: log_key.sign(MESSAGE),
    }


def costs(rounds: int) -> Costs:
    """CPU seconds and units of each primitive."""
    return costs_of(primitives(), rounds)


def costs_of(works: Mapping[str, Callable[[], object]], rounds: int) -> Costs:
    """CPU seconds and units of each work."""
    times = 20

    def often(run: Callable[[], object]) -> Callable[[], None]:
        def work() -> None:
            for _ in range(times):
                run()

        return work

    measured = {}
    for name, run in works.items():
        seconds, units = in_units([often(run)] * rounds)
        measured[name] = (seconds / times, units / times)
    return measured


def section(measured: Costs) -> Section:
    return Section(
        "floor",
        "Floor: CPU of the primitives, and of Flask and SQLite with nothing in them",
        ("primitive", "us", "P-256"),
        [(name, cost * 1e6, units) for name, (cost, units) in measured.items()],
    )


def floor_of(kind: Kind, measured: Costs) -> float:
    """Units of the primitives that an exchange cannot do without."""
    return sum(count * measured[name][1] for name, count in NEEDED[kind].items())
