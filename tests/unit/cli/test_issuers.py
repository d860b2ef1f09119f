"""Token issuers at the command line: registered for good, or vouched for once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.cli.issuer_files import is_keys_file, issuer_document, read_keys, vouched
from kbs.core.errors import MalformedError
from kbs.governance.token_issuer import parse_token_issuer
from kbs.pki.certificates import spki_sha256
from tests.fakes.admin_bench import Bench, Ran, run
from tests.fakes.amd import NOW
from tests.fakes.cca import IMPLEMENTATION, INSTANCE, FakeCca, cca_key
from tests.fakes.tokens import (
    EAR,
    GCS,
    MAA,
    NRAS,
    FakeGooglePKI,
    FakeSet,
    ear_claims,
    gcs_claims,
    maa_claims,
)

pytestmark = pytest.mark.enable_socket

AT = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")


def written(path: Path, value: object) -> Path:
    data = value if isinstance(value, str) else json.dumps(value)
    path.write_text(data)
    return path


def verify(*arguments: object) -> Ran:
    return run("evidence", "verify", *map(str, arguments), "--json")


def statuses(ran: Ran) -> dict[str, str]:
    return {check["id"]: check["status"] for check in ran.json["checks"]}


def anchors() -> list[dict[str, object]]:
    given = FakeCca().document()["platforms"]
    assert isinstance(given, list)
    return [
        {
            "pkey": given[0]["key"],
            "instance-id": INSTANCE.hex().upper(),
            "implementation-id": IMPLEMENTATION.hex(),
        }
    ]


def pem_of_cpak() -> str:
    public = cca_key(1).public_key()
    data = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data.decode()


# --- vouched for once -----------------------------------------------------------------


def test_a_token_is_verified_with_the_keys_of_a_file(tmp_path: Path) -> None:
    token = written(tmp_path / "t.jwt", MAA.sign(maa_claims()) + "\n")
    keys = written(tmp_path / "keys.json", {"keys": [MAA.jwk()]})
    ran = verify(token, "--collateral", keys, "--at", AT)
    assert (ran.code, ran.json["verdict"]) == (0, "verified")
    assert ran.json["claims"]["maa"]["x_ms_sevsnpvm_guestsvn"] == 2
    assert statuses(ran)["token.issuer"] == "skipped"
    alone = verify(token, "--at", AT)
    assert (alone.code, alone.json["verdict"]) == (3, "unchecked")
    others = written(tmp_path / "others.json", {"keys": [EAR.jwk()]})
    assert verify(token, "--collateral", others, "--at", AT).code == 3
    late = verify(token, "--collateral", keys, "--at", "2027-01-01T00:00:00Z")
    assert (late.code, statuses(late)["token.validity"]) == (1, "fail")


def test_keys_beside_other_evidence_are_not_ignored(tmp_path: Path) -> None:
    keys = written(tmp_path / "keys.json", MAA.jwk())
    report = tmp_path / "report.bin"
    report.write_bytes(bytes(1184))
    ran = run("evidence", "verify", str(report), "--collateral", str(keys))
    assert (ran.code, ran.out) == (2, "")
    assert "--collateral" in ran.err


def test_a_nonce_is_compared_with_the_tokens(tmp_path: Path) -> None:
    token = written(tmp_path / "t.jwt", EAR.sign(ear_claims("bm9uY2Ux")))
    keys = written(tmp_path / "keys.json", EAR.jwk())
    same = verify(token, "--collateral", keys, "--at", AT, "--nonce", "bm9uY2Ux")
    assert same.code == 0
    other = verify(token, "--collateral", keys, "--at", AT, "--nonce", "bm9uY2Uy")
    assert (other.code, statuses(other)["binding.nonce"]) == (1, "fail")


def test_a_set_is_known_by_its_form(tmp_path: Path) -> None:
    item = FakeSet(nonce="ab" * 32, count=2).item()
    listed = [["JWT", item["jwt"]], item["submodules"]]
    path = written(tmp_path / "set.json", listed)
    keys = written(tmp_path / "keys.json", {"keys": [NRAS.jwk()]})
    ran = verify(path, "--collateral", keys, "--at", AT)
    assert ran.code == 0, ran.json
    assert [one["submodule"] for one in ran.json["claims"]["nras"]] == [
        *("GPU-0", "GPU-1"),
    ]
    shown = run("evidence", "inspect", str(path), "--json").json["items"][0]
    assert shown["token"]["profile"] == "nras"


@pytest.mark.parametrize(
    "text",
    [
        '[["JWT", "a.b.c"]]',
        '[["JWT"], {}]',
        '[["JWT", "a.b.c"], []]',
        '[["JWT", 7],{}]',
    ],
)
def test_another_set_does_not_parse(tmp_path: Path, text: str) -> None:
    ran = verify(written(tmp_path / "set.json", text))
    assert (ran.code, statuses(ran)) == (2, {"token.parse": "fail"})


def test_a_token_that_is_none_does_not_parse(tmp_path: Path) -> None:
    ran = verify(written(tmp_path / "t.jwt", "abcd.efgh.ijkl"))
    assert (ran.code, statuses(ran)) == (2, {"token.parse": "fail"})
    data = tmp_path / "t.bin"
    data.write_bytes(b"\xff\xfe")
    assert verify(data, "--kind", "token").code == 2


def test_the_root_of_a_pki_token_is_given_as_certificate(tmp_path: Path) -> None:
    pki = FakeGooglePKI()
    token = written(tmp_path / "t.jwt", str(pki.sign(gcs_claims())["jwt"]))
    root = tmp_path / "root.pem"
    root.write_bytes(pki.root.public_bytes(Encoding.PEM))
    ran = verify(token, "--cert", root, "--at", AT)
    assert ran.code == 0, ran.json
    assert statuses(ran)["token.chain"] == "pass"
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(pki.leaf.public_bytes(Encoding.PEM))
    assert statuses(verify(token, "--cert", leaf, "--at", AT))["token.chain"] == "fail"


@pytest.mark.parametrize("algorithm", ["RS384", "PS256"])
def test_a_key_that_does_not_name_its_algorithm_counts_for_this_command(
    tmp_path: Path, algorithm: str
) -> None:
    verifier = replace(EAR, algorithm=algorithm, kid=None)
    token = written(tmp_path / "token.jwt", verifier.sign(ear_claims()))
    pem = verifier.key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    keys = written(tmp_path / "key.pem", pem.decode())
    ran = verify(token, "--at", AT, "--collateral", keys)
    assert (ran.code, ran.json["verdict"]) == (0, "verified")
    # To be registered for good, it has to leave no doubt.
    document = issuer_document(
        "ear", issuer=EAR.iss, audience=None, keys=(keys,), roots=()
    )
    with pytest.raises(MalformedError, match="exactly one of"):
        parse_token_issuer(document)


@pytest.mark.parametrize("form", ["jwk", "pem", "anchors"])
def test_a_cca_token_is_verified_with_a_key_of_a_file(
    tmp_path: Path, form: str
) -> None:
    token = tmp_path / "realm.cbor"
    token.write_bytes(FakeCca().token(bytes(range(64))))
    given = FakeCca().document()["platforms"]
    assert isinstance(given, list)
    values = {"jwk": given[0]["key"], "pem": pem_of_cpak(), "anchors": anchors()}
    keys = written(tmp_path / "keys", values[form])
    ran = verify(token, "--collateral", keys)
    assert ran.code == 0, ran.json
    assert ran.json["claims"]["cca"]["platform"]["lifecycle"] == "secured"
    assert verify(token).code == 3
    refused = verify(token, "--collateral", keys, "--cert", keys)
    assert refused.code == 2
    assert "inspect" in run("evidence", "inspect", "--help").out
    shown = run("evidence", "inspect", str(token), "--json").json["items"][0]
    assert shown["kind"] == "cca"


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "[7]",
        '[{"pkey": {}}]',
        '{"keys": []}',
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        json.dumps([{**anchors()[0], "instance-id": 7}]),
        json.dumps([{**anchors()[0], "instance-id": "zz"}]),
        json.dumps({"kty": "OKP", "crv": "X25519", "x": "AAAA"}),
    ],
)
def test_a_file_without_usable_keys_is_told(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "keys", text)
    assert is_keys_file(path.read_bytes()) is (text not in {"{}", "[]", "[7]"})
    with pytest.raises(MalformedError):
        vouched(path, "--collateral")


# --- registered -----------------------------------------------------------------------


def test_issuers_are_registered_listed_and_removed(
    shared_bench: Bench, tmp_path: Path
) -> None:
    bench = shared_bench
    keys = written(tmp_path / "keys.json", {"keys": [{**MAA.jwk(), "use": "sig"}]})
    name = "acme/azure"
    options = ("--service", "maa", "--issuer", MAA.iss, "--keys", str(keys))
    made = bench.must("ref", "add", "issuer", name, *options)
    assert (made["version"], made["active"]) == (1, True)
    shown = bench.must("ref", "show", "issuer", name)
    assert shown["content"]["keys"] == [MAA.jwk()]
    assert name in bench.run("ref", "list", "--kind", "issuer").out
    again = bench.must("ref", "add", "issuer", name, *options, "--audience", "kbs")
    assert again["version"] == 2
    assert "is removed" in bench.run("ref", "remove", "issuer", name).out


def test_platforms_and_roots_are_registered(
    shared_bench: Bench, tmp_path: Path
) -> None:
    bench = shared_bench
    store = written(tmp_path / "ta.json", anchors())
    bench.must(
        *("ref", "add", "issuer", "acme/arm", "--service", "cca"),
        *("--keys", str(store)),
    )
    shown = bench.must("ref", "show", "issuer", "acme/arm")
    assert shown["content"] == FakeCca().document()
    pki = FakeGooglePKI()
    root = tmp_path / "root.pem"
    root.write_bytes(pki.root.public_bytes(Encoding.PEM))
    bench.must(
        *("ref", "add", "issuer", "acme/space", "--service", "gcs"),
        *("--issuer", GCS.iss, "--audience", "kbs", "--root", str(root)),
    )
    shown = bench.must("ref", "show", "issuer", "acme/space")
    assert shown["content"]["roots"] == [spki_sha256(pki.root)]


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        ("maa", {"issuer": None}),
        ("cca", {"issuer": "x"}),
        ("cca", {"audience": "x"}),
        ("cca", {"roots": (Path("x"),)}),
    ],
)
def test_options_that_mean_nothing_are_refused(
    profile: str, options: dict[str, object]
) -> None:
    given: dict[str, object] = {
        "issuer": None,
        "audience": None,
        "keys": (),
        "roots": (),
        **options,
    }
    with pytest.raises(MalformedError) as caught:
        issuer_document(profile, **given)  # type: ignore[arg-type]
    assert caught.value.code == "usage"


def test_an_anchor_may_name_no_implementation(tmp_path: Path) -> None:
    (anchor,) = anchors()
    del anchor["implementation-id"]
    path = written(tmp_path / "ta.json", [anchor])
    (found,) = read_keys(path, "--keys")
    assert set(found) == {"key", "instance_id"}


def test_keys_of_a_set_are_read_as_they_are_registered(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", {"keys": [MAA.jwk(), EAR.jwk()]})
    assert read_keys(path, "--keys") == [{"key": MAA.jwk()}, {"key": EAR.jwk()}]


EXPLAINED = """\
kind: ReleasePolicy
name: chat
releases: ["acme/chat/*"]
allow:
  - rule: only
    all:
      - {safe: true}
      - {claim: %s, equals: "%s"}
"""
LAUNCH = "maa.x_ms_sevsnpvm_launchmeasurement"
RIM = "cca.realm.initial_measurement"


def explain(folder: Path, item: object, rule: tuple[str, str], *more: object) -> Ran:
    bundle = {"format": "kbs.evidence/1", "items": [item]}
    return run(
        *("policy", "explain", str(written(folder / "policy.yaml", EXPLAINED % rule))),
        *("--evidence", str(written(folder / "bundle.json", bundle))),
        *("--context", str(written(folder / "context.yaml", "{}"))),
        *map(str, ("--at", AT, *more)),
        "--json",
    )


def test_a_token_is_explained_with_the_keys_of_a_file(tmp_path: Path) -> None:
    item, rule = MAA.item(maa_claims()), (LAUNCH, "ab" * 48)
    without = explain(tmp_path, item, rule)
    assert (without.code, without.json["decision"]) == (3, "denied")
    assert without.json["reasons"][0]["id"] == "token.issuer"
    keys = written(tmp_path / "maa.json", {"keys": [MAA.jwk()]})
    ran = explain(tmp_path, item, rule, "--collateral", keys)
    assert (ran.code, ran.json["decision"]) == (0, "granted")
    other = explain(tmp_path, item, (LAUNCH, "cd" * 48), "--collateral", keys)
    assert (other.code, other.json["reasons"][0]["id"]) == (1, LAUNCH)


def test_a_realm_is_explained_with_the_keys_of_a_file(tmp_path: Path) -> None:
    keys = written(tmp_path / "cpaks.json", anchors())
    item, rule = FakeCca().item(bytes(64)), (RIM, "ab" * 32)
    assert explain(tmp_path, item, rule).code == 3
    assert explain(tmp_path, item, rule, "--collateral", keys).code == 0


@pytest.mark.parametrize("content", ['{"keys": [{"kty": "oct", "k": "AA"}]}', "text"])
def test_collateral_that_cannot_be_read_is_no_finding_about_the_evidence(
    tmp_path: Path, content: str
) -> None:
    keys = written(tmp_path / "keys", content)
    rule = (LAUNCH, "ab" * 48)
    ran = explain(tmp_path, MAA.item(maa_claims()), rule, "--collateral", keys)
    assert (ran.code, ran.out) == (2, "")
    ran.assert_one_error_line()


def test_a_broker_explains_with_its_own_issuers(tmp_path: Path) -> None:
    keys = written(tmp_path / "maa.json", {"keys": [MAA.jwk()]})
    evidence = written(tmp_path / "bundle.json", "{}")
    ran = run(
        *("policy", "explain", "acme/chat", "--evidence", str(evidence)),
        *("--collateral", str(keys)),
    )
    assert ran.code == 2
    assert "--context" in ran.err


def test_a_key_of_no_platform_is_not_registered_for_one(tmp_path: Path) -> None:
    keys = written(tmp_path / "cpak.pem", pem_of_cpak())
    with pytest.raises(MalformedError, match="names no platform"):
        issuer_document("cca", issuer=None, audience=None, keys=(keys,), roots=())


# --- what a file is -------------------------------------------------------------------


def inspect(path: Path) -> Ran:
    return run("evidence", "inspect", str(path), "--json")


def test_the_answer_of_a_service_is_the_token_in_it(tmp_path: Path) -> None:
    token = MAA.sign(maa_claims())
    path = written(tmp_path / "answer.json", {"token": token, "trace": 1})
    keys = written(tmp_path / "maa.json", {"keys": [MAA.jwk()]})
    ran = verify(path, "--at", AT, "--collateral", keys)
    assert (ran.code, ran.json["verdict"]) == (0, "verified")
    assert inspect(path).json["items"][0]["token"]["profile"] == "maa"


@pytest.mark.parametrize(
    "value",
    [
        "{",
        {"token": "a.b"},
        {"token": "ä.b.c"},
        {"token": 7},
        {"eat": "aaaa.b.c"},
        {"format": "kbs.evidence/1", "items": [], "token": "aaaa.b.c"},
    ],
)
def test_another_answer_is_none(tmp_path: Path, value: object) -> None:
    path = written(tmp_path / "answer.json", value)
    assert statuses(verify(path)) == {"bundle.parse": "fail"}
    assert inspect(path).json["items"][0]["kind"] == "bundle"


def test_keys_are_shown_with_the_services_that_they_fit(tmp_path: Path) -> None:
    shown = inspect(written(tmp_path / "set.json", {"keys": [EAR.jwk()]})).json
    (item,) = shown["items"]
    assert item["kind"] == "keys"
    (key,) = item["keys"]["keys"]
    assert (key["kid"], key["alg"]) == (EAR.kid, "ES256")
    assert key["services"] == ["ear", "cca"]
    (platform,) = inspect(written(tmp_path / "cpaks.json", anchors())).json["items"]
    assert platform["keys"]["keys"][0]["instance_id"] == INSTANCE.hex()
    pem = inspect(written(tmp_path / "cpak.pem", pem_of_cpak())).json
    assert pem["items"][0]["keys"]["keys"][0]["services"] == ["nras", "ear", "cca"]


def test_keys_that_cannot_be_read_are_told_as_such(tmp_path: Path) -> None:
    path = written(tmp_path / "set.json", {"keys": [{"kty": "oct", "k": "AA"}]})
    ran = inspect(path)
    assert ran.code == 2
    assert "secret members k" in ran.json["items"][0]["error"]
    (check,) = verify(path).json["checks"]
    assert check["got"] == "members keys"
    assert "--collateral" in check["detail"]
