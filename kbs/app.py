"""The composition root: settings → adapters → broker → front doors.

The only place where parts meet. `create_app_with` takes the parts, so that tests can
give a clock, a failing store, or a probe that kills the process at a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.util import Finalize

from flask import Flask

from kbs.adapters.files import FileHighwater
from kbs.adapters.lock import FileLock
from kbs.adapters.process import free_bytes_of
from kbs.adapters.sql.database import SqlDatabase, connect
from kbs.adapters.sql.migrate import check_schema
from kbs.adapters.trust import INSTANCE_NAME, KEK_NAME, read_instance, read_kek
from kbs.api import admin, front, health, logs, openapi, problems, rcar
from kbs.api.application import Application, Limits
from kbs.broker.actors import Actors
from kbs.broker.attest import Attestation
from kbs.broker.auditing import Auditing
from kbs.broker.checking import check_head
from kbs.broker.collateral import CollateralTable
from kbs.broker.commit import Committer
from kbs.broker.enrol import Enrolment
from kbs.broker.evidence import EvidenceLocker
from kbs.broker.explain import Explaining
from kbs.broker.govern import Governing
from kbs.broker.governance import Governance
from kbs.broker.health import Health
from kbs.broker.identity import Identity, add_missing_keys
from kbs.broker.initialise import require_instance, settle_mode
from kbs.broker.journal import Journal
from kbs.broker.keeping import Keeping
from kbs.broker.key_ledger import KeyLedger
from kbs.broker.lines import UNPAID_SECONDS, DecisionLines
from kbs.broker.mark import MarkKeeper, Ticker
from kbs.broker.pace import Pace
from kbs.broker.pending import PendingSeal
from kbs.broker.ports import Database, Highwater
from kbs.broker.rcar.attest import RcarAttestation
from kbs.broker.rcar.fetch import RcarFetch
from kbs.broker.rcar.tools import Tools
from kbs.broker.rcar.upload import RcarUpload
from kbs.broker.record import Recorder
from kbs.broker.refresh import REFRESH_SECONDS, Refresher
from kbs.broker.refusals import V1, Refusal, RefusalCounter
from kbs.broker.release import Release
from kbs.broker.replies import Replies
from kbs.broker.reserve import DiskReserve
from kbs.broker.sealing import Sealer
from kbs.broker.service import Broker, Rcar
from kbs.broker.steady import SteadyClock
from kbs.broker.upkeep import Upkeep
from kbs.broker.vault import Vault
from kbs.broker.vendors.fetching import Vendors
from kbs.core.claims import Vocabulary
from kbs.core.clock import Clock, SystemClock
from kbs.core.errors import IntegrityError, KbsError, UnavailableError
from kbs.core.fetch import Fetcher
from kbs.core.ids import new_decision_id
from kbs.evidence.model import GivenCollateral, Verifier
from kbs.evidence.registry import VERIFIERS, vocabulary
from kbs.keys.wrap import KeyEncryptionKey, LocalKEK
from kbs.settings import Settings

ADMIN_PREFIXES = ("token.", "admin.")
"""How the codes of refused administrators begin."""

WATCH_SECONDS = 60.0
"""How often everything in force is proven anew."""


def _http_fetcher() -> Fetcher:
    # A broker that fetches nothing does without the library.
    from kbs.adapters.http import HttpFetcher  # noqa: PLC0415

    return HttpFetcher()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that a broker is put together from."""

    database: Database
    highwater: Highwater
    kek: KeyEncryptionKey
    instance: str
    genesis_digest: str
    clock: Clock = field(default_factory=SystemClock)
    verifiers: Mapping[str, Verifier] = field(default_factory=lambda: VERIFIERS)
    vocabulary: Vocabulary = field(default_factory=vocabulary)
    free_bytes: Callable[[], int] = lambda: 2**62
    steps: Callable[[str], None] = lambda _: None
    monotonic: Callable[[], float] = time.monotonic
    close: Callable[[], None] = lambda: None
    fetcher: Callable[[], Fetcher] = _http_fetcher
    vendor_roots: Mapping[str, str] | None = None
    """As `Trust.pinned_roots`, for what is fetched."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A broker and what runs beside its requests."""

    broker: Broker
    upkeep: Upkeep
    mark: MarkKeeper
    journal: Journal
    ledger: KeyLedger
    refresher: Refresher | None


def open_database(settings: Settings) -> SqlDatabase:
    """Open the database that the settings name."""
    return connect(settings.db, data_dir=settings.data, threads=settings.threads)


def open_parts(settings: Settings) -> Parts:
    """Open everything that the settings name.

    Raises:
        ConfigurationError: trust folder or database are not as they must be.
    """
    pinned = read_instance(settings.trust / INSTANCE_NAME)
    database = open_database(settings)
    check_schema(database.engine)
    return Parts(
        database=database,
        highwater=FileHighwater(settings.trust),
        kek=LocalKEK(read_kek(settings.trust / KEK_NAME)),
        instance=pinned.instance,
        genesis_digest=pinned.genesis,
        free_bytes=free_bytes_of(settings.data),
        close=database.close,
    )


def compose(parts: Parts, settings: Settings) -> Composed:
    """Put the broker together; checks nothing that `check_start` checks.

    Raises:
        IntegrityError: the broker's keys do not open.
    """
    clock, database = parts.clock, parts.database
    vault = Vault(parts.kek, parts.instance)
    identity = Identity(database, vault, clock, parts.instance)
    committer = Committer(database, identity, steps=parts.steps)
    journal = Journal(committer, clock)
    refusals = RefusalCounter(clock.now())
    reserve = DiskReserve(parts.free_bytes, parts.monotonic)
    locker = EvidenceLocker(
        vault,
        settings.evidence_retention_days,
        settings.evidence_max_mib * 1024 * 1024,
    )
    mark = MarkKeeper(
        database, parts.highwater, identity, genesis_digest=parts.genesis_digest
    )

    def declare(source: str, fault: UnavailableError | None) -> None:
        governance.declare(source, fault)

    def fresh_head() -> int:
        with database.read() as tx:
            return tx.governance.head()

    steady = SteadyClock(clock, parts.monotonic)
    upkeep = Upkeep(
        database=database,
        journal=journal,
        refusals=refusals,
        mark=mark,
        locker=locker,
        reserve=reserve,
        clock=clock,
        steady=steady,
        declare=declare,
    )
    governance = Governance(
        instance=parts.instance,
        genesis_digest=parts.genesis_digest,
        vocabulary=parts.vocabulary,
        tampered=upkeep.report_integrity,
        anchor=mark,
        fresh_head=fresh_head,
    )
    collateral = CollateralTable(
        database=database,
        journal=journal,
        identity=identity,
        mark=mark,
        clock=clock,
        report=upkeep.report_integrity,
        kept=timedelta(days=settings.evidence_retention_days),
        is_steady=steady.is_steady,
    )
    ledger = KeyLedger(
        database=database,
        identity=identity,
        vault=vault,
        mark=mark,
        report=upkeep.report_integrity,
    )
    refresher = _refresher(parts, settings, collateral)
    seal = PendingSeal(identity.state_key, upkeep.report_integrity)

    def refused(error: KbsError) -> None:
        # Administrators' tokens are counted beside what guests send.
        door = "admin" if error.code.startswith(ADMIN_PREFIXES) else V1
        decision = new_decision_id()
        refusals.count(Refusal.of_fault(decision, error, clock.now(), door=door))

    attestation = Attestation(
        governance, collateral, parts.verifiers, development=settings.development
    )
    lines = DecisionLines(parts.monotonic)
    actors = Actors(
        database,
        governance,
        clock,
        instance=parts.instance,
        refused=refused,
        forbidden=journal.refused,
    )
    keeping = Keeping(database, vault, journal, clock, ledger=ledger, mark=mark)
    tools = Tools(
        database=database,
        identity=identity,
        vault=vault,
        journal=journal,
        collateral=collateral,
        refusals=refusals,
        lines=lines,
        clock=clock,
        development=settings.development,
        steps=parts.steps,
    )
    broker = Broker(
        identity=identity,
        clock=clock,
        development=settings.development,
        release=Release(
            database=database,
            governance=governance,
            attestation=attestation,
            identity=identity,
            ledger=ledger,
            sealer=Sealer(vault),
            journal=journal,
            recorder=Recorder(
                journal=journal,
                identity=identity,
                collateral=collateral,
                locker=locker,
                reserve=reserve,
                development=settings.development,
                steps=parts.steps,
            ),
            refusals=refusals,
            replies=Replies(identity),
            lines=lines,
            clock=clock,
            development=settings.development,
            steps=parts.steps,
        ),
        rcar=Rcar(
            attestation=RcarAttestation(tools, attestation, locker, reserve),
            fetch=RcarFetch(tools, governance, ledger, locker, reserve),
            upload=RcarUpload(actors, keeping),
        ),
        enrolment=Enrolment(
            database=database,
            governance=governance,
            identity=identity,
            seal=seal,
            journal=journal,
            clock=clock,
            refused=refused,
        ),
        actors=actors,
        governing=Governing(
            database=database,
            governance=governance,
            journal=journal,
            clock=clock,
            mark=mark,
            seal=seal,
        ),
        explaining=Explaining(
            database=database,
            governance=governance,
            ledger=ledger,
            collateral=collateral,
            verifiers=parts.verifiers,
            clock=clock,
            development=settings.development,
        ),
        keeping=keeping,
        collateral=collateral,
        audit=Auditing(
            database=database,
            governance=governance,
            identity=identity,
            locker=locker,
            upkeep=upkeep,
            journal=journal,
        ),
        health=Health(
            database=database,
            governance=governance,
            vault=vault,
            collateral=collateral,
            clock=clock,
            free_bytes=parts.free_bytes,
            unwritten=lambda: journal.fault,
            development=settings.development,
            refresher=refresher,
        ),
    )
    return Composed(broker, upkeep, mark, journal, ledger, refresher)


def _refresher(
    parts: Parts, settings: Settings, table: CollateralTable
) -> Refresher | None:
    if not settings.refresh_collateral:
        return None

    def known() -> GivenCollateral:
        with parts.database.read() as tx:
            return table.current(tx)

    return Refresher(
        table=table,
        known=known,
        vendors=Vendors(
            parts.fetcher(), parts.clock, settings.services, pins=parts.vendor_roots
        ),
        lock=FileLock(settings.data / "collateral.lock").held,
        clock=parts.clock,
    )


def check_start(parts: Parts, settings: Settings) -> None:
    """Return if this broker may start; once, before any worker.

    1. The database is the pinned instance's.
    2. Development and production do not mix.
    3. The database extends the high-water mark, or the operator says otherwise.
    4. Governance is what was signed, and what the log tells of.

    Raises:
        ConfigurationError: 1 or 2.
        IntegrityError: 3 or 4.
    """
    found = require_instance(parts.database, instance=parts.instance)
    settle_mode(parts.database, found, development=settings.development)
    add_missing_keys(
        parts.database, Vault(parts.kek, parts.instance), parts.clock.now()
    )
    composed = compose(parts, settings)
    collateral = composed.broker.collateral
    try:
        composed.mark.check()
        with parts.database.read() as tx:
            collateral.current(tx)
            composed.ledger.check(tx)
    except IntegrityError:
        if settings.accept_rollback is None:
            raise
        with parts.database.write() as tx:
            collateral.reseal(tx)
            composed.ledger.reseal(tx)
        event = composed.mark.accepted(settings.accept_rollback)
        with parts.database.write() as tx:
            composed.broker.identity.rotate_challenge_key(tx, parts.clock.now())
        composed.journal.record(event)
        composed.mark.replace()
    _prove(parts, composed)
    composed.mark.write()


def _prove(parts: Parts, composed: Composed) -> None:
    with parts.database.read() as tx:
        state = composed.broker.governing.prove(tx)
        check_head(tx, composed.broker.identity.log_key, state)


def create_app(settings: Settings) -> Flask:
    """Return the application of one worker process, with its upkeep running.

    Raises:
        IntegrityError: the database is not what it was when the broker started; a
            worker that is started again later must not believe it.
    """
    return create_app_with(open_parts(settings), settings, serving=True)


def create_app_with(
    parts: Parts, settings: Settings, *, serving: bool = False
) -> Flask:
    """Return the application made of these parts; `serving` ones check and keep up.

    Raises:
        IntegrityError: as for `create_app`, with `serving`.
    """
    composed = compose(parts, settings)
    if serving:
        composed.mark.check()
        _prove(parts, composed)
    app = Application(
        Limits.of_rates(settings.rate_limit, settings.rate_limit_total, parts.monotonic)
    )
    app.extensions["kbs"] = composed.broker
    app.extensions["kbs.strangers"] = Pace(parts.monotonic, UNPAID_SECONDS)
    problems.install(app)
    for blueprint in (
        front.blueprint,
        rcar.blueprint,
        admin.blueprint,
        health.blueprint,
        logs.blueprint,
        openapi.blueprint,
    ):
        app.register_blueprint(blueprint)
    if serving:
        _run_upkeep(composed, settings)
    return app


def _run_upkeep(composed: Composed, settings: Settings) -> None:
    tickers: tuple[Ticker, ...] = (
        Ticker(composed.upkeep.every_second, 1.0, name="kbs-mark"),
        Ticker(
            composed.upkeep.every_minute, settings.refusal_seconds, name="kbs-upkeep"
        ),
        # A row that nobody asks for is watched too.
        Ticker(composed.broker.governing.watch, WATCH_SECONDS, name="kbs-governance"),
        Ticker(composed.ledger.watch, WATCH_SECONDS, name="kbs-keys"),
    )
    refresher = composed.refresher
    if refresher is not None:
        tickers += (Ticker(refresher.run, REFRESH_SECONDS, name="kbs-collateral"),)
        # Before the tickers are stopped, each of which runs once more.
        Finalize(None, refresher.close, exitpriority=2)
    for ticker in tickers:
        ticker.start()
        # What runs at the end of a worker process too, where `atexit` does not.
        Finalize(None, ticker.stop, exitpriority=1)
