"""`kbs guest`: what runs inside the TEE, at boot or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import (
    EXIT_REFUSED,
    CliContext,
    common_options,
    emit,
    require_one,
)
from kbs.cli.guest_options import GuestOptions, guest_options
from kbs.cli.guest_results import fetched_json, say_fetched, write_fetched
from kbs.cli.inputs import read_input
from kbs.cli.x509_files import read_certificates
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, parse_key_ref, parse_scoped_name

if TYPE_CHECKING:
    from kbs.client.guest import Fetched

_OUT_FILE = click.Path(path_type=Path, dir_okay=False)
_KEYS = click.argument("keys", nargs=-1, required=True, metavar="KEY…")

# An `attest` without keys still needs a request; this one names nothing that exists,
# and a dry run never releases.
_NO_KEY = "attest/only/none"


@click.group()
def guest() -> None:
    """Attest, and fetch keys, inside the TEE."""


@guest.command()
@click.option("--group", required=True, metavar="TENANT/GROUP", help="Group to join.")
@click.option("--ek-cert", type=_OUT_FILE, help="EK certificate, if not in the TPM.")
@click.option("--ek-chain", type=_OUT_FILE, multiple=True, help="Its issuers.")
@guest_options
@common_options
def enroll(
    context: CliContext,
    *,
    guest: GuestOptions,
    group: str,
    ek_cert: Path | None,
    ek_chain: tuple[Path, ...],
) -> None:
    """Prove EK and AK to the broker; an administrator makes it trust."""
    from kbs.client.enrol import Enroller

    scoped = parse_scoped_name(group, "group")
    _require_tpm_alone(guest)
    certificates = read_certificates((ek_cert,), "EK certificate") if ek_cert else ()
    enroller = Enroller(
        tcti=guest.tcti,
        ak_handle=guest.ak_handle,
        certificate=certificates[0] if certificates else None,
        chain=certificates[1:] + read_certificates(ek_chain, "EK chain"),
    )
    if guest.broker_key is not None:
        # Nothing in an enrolment is signed by the broker; a challenge is, and tells
        # whether the right one answers.
        guest.client(context).challenge()
    pending = enroller.enrol(guest.transport(context), scoped, guest.patience())

    def human() -> None:
        click.echo(
            f"enrolment {pending.id} of AK {pending.ak_name} is {pending.status}"
        )
        click.echo(f"next, an administrator: kbs ref add ak --pending {pending.id}")

    emit(context, pending.to_json(), human)


@guest.command()
@click.argument("keys", nargs=-1, metavar="[KEY…]")
@click.option("--out", type=_OUT_FILE, required=True, metavar="BUNDLE")
@click.option(
    "--mode",
    type=click.Choice(["check", "release"]),
    default="check",
    show_default=True,
    help="What the evidence asks for; its key pair is thrown away in either case.",
)
@guest_options
@common_options
def attest(
    context: CliContext,
    *,
    guest: GuestOptions,
    keys: tuple[str, ...],
    out: Path,
    mode: str,
) -> None:
    """Write an evidence bundle over a fresh challenge."""
    from kbs.artifacts.files import OPENED_MODE, replacing
    from kbs.channel.binding import Mode

    refs = _key_refs(keys or (_NO_KEY,))
    client = guest.client(context)
    attested = guest.patience().persist(lambda: client.attest(refs, mode=Mode(mode)))
    with replacing(out, mode=OPENED_MODE) as file:
        file.write(attested.bundle.raw)
    document = {
        "bundle": str(out),
        "bytes": len(attested.bundle.raw),
        "kinds": [attester.kind for attester in guest.attesters()],
        "audience": attested.runtime_data.audience,
        "nonce": attested.runtime_data.nonce,
    }
    emit(
        context,
        document,
        lambda: click.echo(
            f"{out}: {', '.join(document['kinds'])} evidence for {document['audience']}"
        ),
    )


@guest.command()
@_KEYS
@click.option("--partial", is_flag=True, help="Some of the keys are good enough.")
@guest_options
@common_options
def check(
    context: CliContext, *, guest: GuestOptions, keys: tuple[str, ...], partial: bool
) -> None:
    """Ask what `fetch` would get; no key leaves the broker."""
    refs = _key_refs(keys)
    fetched: Fetched = guest.client(context).check(refs, partial=partial)
    emit(
        context,
        fetched_json(fetched),
        lambda: say_fetched(fetched, "would be released"),
    )
    answer = fetched.answer
    if not answer.keys or (answer.denied and not partial):
        click.get_current_context().exit(EXIT_REFUSED)


@guest.command()
@_KEYS
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write DIR/repository/type/tag, mode 0600; DIR should be on tmpfs.",
)
@click.option("--out-fd", type=int, metavar="N", help="Write one key's bytes there.")
@click.option("--partial", is_flag=True, help="Take the keys that are granted.")
@guest_options
@common_options
def fetch(
    context: CliContext,
    *,
    guest: GuestOptions,
    keys: tuple[str, ...],
    out: Path | None,
    out_fd: int | None,
    partial: bool,
) -> None:
    """Attest and take keys from the broker."""
    refs = _key_refs(keys)
    _require_one_place(context, refs, out, out_fd)
    fetched: Fetched = guest.client(context).fetch(refs, partial=partial)
    document = fetched_json(fetched)
    if out is not None:
        document["files"] = write_fetched(out, fetched)
    if out_fd is not None:
        from kbs.client.deliver import write_descriptor

        write_descriptor(out_fd, fetched.keys[0])
    if out_fd != 1:
        emit(context, document, lambda: say_fetched(fetched, "released"))


@guest.command()
@click.argument("file", type=_OUT_FILE)
@click.option("--key-file", type=_OUT_FILE, help="The key, or an age identity.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder that `fetch --out` filled; the file says which key.",
)
@click.option("--out", type=_OUT_FILE, required=True, help="Where the content goes.")
@common_options
def unseal(
    context: CliContext,
    *,
    file: Path,
    key_file: Path | None,
    keys: Path | None,
    out: Path,
) -> None:
    """Open a sealed file (kbs or age) with a key that was fetched."""
    from kbs.artifacts.files import open_file
    from kbs.cli.render import progress

    require_one(
        "which key opens it",
        {"--key-file": key_file, "--keys": keys},
        expected="--key-file FILE, or --keys DIR that fetch filled",
    )
    path = key_file if keys is None else _key_path(keys, file)
    # An age identity is text of any length; for our own format the size is checked
    # against the format when it is opened.
    secret = read_input(path, "key file", limit=65536) if path else b""
    with progress(f"unseal {file.name}", None) as advance:
        size = open_file(file, out, secret, progress=advance)
    emit(
        context,
        {"file": str(file), "out": str(out), "size": size, "key_file": str(path)},
        lambda: click.echo(f"{out}: {size} bytes"),
    )


@guest.command()
@click.argument("policy", type=_OUT_FILE)
@click.option("--pcr", type=int, default=15, show_default=True)
@click.option(
    "--tcti", default="device:/dev/tpmrm0", envvar="KBS_TCTI", show_default=True
)
@common_options
def measure(context: CliContext, *, policy: Path, pcr: int, tcti: str) -> None:
    """Measure a workload policy into a PCR, before the workload starts."""
    from kbs.client.measure import measure_workload, require_measurable
    from kbs.client.tpm import open_tpm

    data = read_input(policy, "workload policy")
    require_measurable(data)
    with open_tpm(tcti) as tpm:
        values = measure_workload(tpm, data, pcr)

    def human() -> None:
        for bank, value in values.items():
            click.echo(f"{bank}:{pcr} {value}")

    emit(context, {"pcr": pcr, "values": values}, human)


def _require_tpm_alone(guest: GuestOptions) -> None:
    if guest.kinds != ("vtpm",):
        raise MalformedError(
            "--kind",
            got=", ".join(guest.kinds),
            expected="vtpm: only a TPM's key is enrolled",
            hint="leave it out",
            code="usage",
        )
    # What the other options say about the TPM is read before anybody is asked.
    guest.attesters()


def _key_refs(keys: tuple[str, ...]) -> tuple[KeyRef, ...]:
    refs = tuple(parse_key_ref(key) for key in keys)
    if len(set(refs)) != len(refs):
        raise MalformedError("keys", got="a key twice", expected="every key once")
    return refs


def _require_one_place(
    context: CliContext, refs: tuple[KeyRef, ...], out: Path | None, out_fd: int | None
) -> None:
    from kbs.client.deliver import require_descriptor, require_places

    require_one(
        "where the keys go",
        {"--out": out, "--out-fd": out_fd},
        expected="--out DIR for files, or --out-fd N for one key's bytes",
    )
    if out is not None:
        require_places(out, [ref.key_id for ref in refs])
    if out_fd is None:
        return
    if len(refs) != 1 or (out_fd == 1 and context.json):
        raise MalformedError(
            "--out-fd",
            got=f"{len(refs)} keys" + (" and --json on stdout" if context.json else ""),
            expected="one key, and a descriptor of its own",
            code="usage",
        )
    require_descriptor(out_fd)


def _key_path(folder: Path, file: Path) -> Path:
    from kbs.artifacts.files import inspect_file

    named = inspect_file(file).get("key")
    if not isinstance(named, str):
        raise MalformedError(
            f"sealed file {file}",
            got="no key in its header",
            expected="repository/type/tag@version",
            hint="give --key-file",
        )
    key_id = parse_key_ref(named).key_id
    return folder / key_id.repository / key_id.type / key_id.tag
