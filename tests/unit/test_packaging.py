"""What is shipped around the program: images, the compose file, units.

No container engine is needed: the files are read as data. That what they start is
refused when it fails open is shown with the program itself in
`tests/e2e/test_packaged.py`.
"""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from kbs.cli.main import kbs
from tests.conftest import ROOT
from tests.fakes.dockerfiles import Instruction, Stage, parse_dockerfile

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*Dockerfile"))
UNITS = sorted((DOCKER / "systemd").glob("*.service"))
SHIPPED = sorted(
    path
    for path in DOCKER.rglob("*")
    if path.is_file() and not {"profile", "pinned", "secrets"} & set(path.parts)
)
FAIL_OPEN = ("--dev", "--plain-http", "--accept-rollback")
"""Options of `kbs serve` under which it answers to what proves nothing."""

_PINNED = re.compile(r"[a-z0-9./-]+:(?=[\w.-]*[0-9])[\w.-]+(?:@sha256:[0-9a-f]{64})?")
_SECRET = re.compile(
    r"passw|secret|token|private|credential|api_?key|\bkek\b", re.IGNORECASE
)
_COMPILERS = ("gcc", "g++", "cc", "clang", "build-essential", "make", "rustc", "cargo")


def _where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _stages() -> Iterator[tuple[Path, Stage]]:
    for path in DOCKERFILES:
        for stage in parse_dockerfile(path):
            yield path, stage


STAGES = list(_stages())
FINAL = [(path, stage) for path, stage in STAGES if stage.all("ENTRYPOINT")]
every_stage = pytest.mark.parametrize(
    "stage", [stage for _, stage in STAGES], ids=lambda one: one.name or "final"
)
every_image = pytest.mark.parametrize(
    "stage", [stage for _, stage in FINAL], ids=lambda one: one.name or "final"
)


def _serving() -> Stage:
    (stage,) = (stage for path, stage in FINAL if path.name == "Dockerfile")
    return stage


# -- images ----------------------------------------------------------------------------


def test_there_is_a_service_and_a_guest() -> None:
    names = [path.name for path in DOCKERFILES]
    assert names == ["Dockerfile", "guest.Dockerfile"]
    assert len(FINAL) == 3


@every_stage
def test_every_base_is_fixed_by_a_release(stage: Stage) -> None:
    assert is_pinned(stage.base), stage.base


def is_pinned(image: str) -> bool:
    """Whether an image is named with a tag that says a version."""
    return _PINNED.fullmatch(image) is not None and "latest" not in image


@pytest.mark.parametrize(
    "image", ["debian", "debian:latest", "debian:stable-slim", "kbs:${TAG}", "$BASE"]
)
def test_a_base_that_moves_is_found(image: str) -> None:
    assert not is_pinned(image)


@every_stage
def test_packages_leave_neither_recommendations_nor_lists(stage: Stage) -> None:
    for run in stage.all("RUN"):
        steps = [step.strip() for step in run.value.split("&&")]
        installs = [step for step in steps if step.startswith("apt-get install")]
        for step in installs:
            assert {"-y", "--no-install-recommends"} <= set(step.split()), step
        assert bool(installs) == ("apt-get update" in steps)
        assert bool(installs) == ("rm -rf /var/lib/apt/lists/*" in steps)
        assert "curl" not in run.value
        assert "wget" not in run.value


@every_stage
def test_python_packages_are_pinned_and_leave_no_cache(stage: Stage) -> None:
    installs = [
        step
        for run in stage.all("RUN")
        for step in run.value.split("&&")
        if re.search(r"/pip\b.* install\b", step)
    ]
    for step in installs:
        words = shlex.split(step)
        assert "--no-cache-dir" in words
        if "--no-index" in words:
            # Our own wheel, which the line before made.
            assert "--no-deps" in words
            continue
        pins = [word for word in words if word.startswith("requirements/")]
        assert pins, step
        for pin in pins:
            assert (ROOT / pin).is_file(), pin
        if "/opt/kbs/bin/python" in words:
            # What lands in the image is not built by code that came with it.
            assert "--only-binary" in words


def test_requirements_name_exact_versions() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for line in path.read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*", line), line


def test_a_guest_gets_packages_of_known_versions() -> None:
    """Names without a version are pinned by a file that they are constrained to."""
    (build,) = (
        stage
        for path, stage in STAGES
        if path.name == "guest.Dockerfile" and stage.name == "build"
    )
    (run,) = (one for one in build.all("RUN") if "requirements/guest.txt" in one.value)
    named = run.value.rpartition("requirements/guest.txt")[2].split()
    pins = (ROOT / "requirements" / "service.txt").read_text("utf-8")
    known = {line.partition("==")[0].lower() for line in pins.splitlines()}
    assert named
    assert set(named) <= known
    assert not {"flask", "sqlalchemy", "granian", "alembic"} & set(named)


@every_stage
def test_nothing_is_fetched_by_url(stage: Stage) -> None:
    assert stage.all("ADD") == []
    for copy in stage.all("COPY"):
        assert "://" not in copy.value


@every_stage
def test_no_secret_is_built_in(stage: Stage) -> None:
    for name in ("ENV", "ARG", "LABEL"):
        for one in stage.all(name):
            assert not _SECRET.search(one.value), one.value


@pytest.mark.parametrize(
    ("path", "stage"), STAGES, ids=lambda one: getattr(one, "name", "")
)
def test_what_is_copied_exists_and_is_sent_to_the_engine(
    path: Path, stage: Stage
) -> None:
    names = {one.name for one in parse_dockerfile(path)}
    for copy in stage.all("COPY"):
        options, sources = _copied(copy)
        origin = options.get("--from")
        if origin is not None:
            assert origin in names
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert _is_sent(source), f"{source} is left out by .dockerignore"


def _copied(copy: Instruction) -> tuple[dict[str, str], list[str]]:
    words = copy.value.split()
    options = {
        word.partition("=")[0]: word.partition("=")[2]
        for word in words
        if word.startswith("--")
    }
    return options, [word for word in words if not word.startswith("--")][:-1]


def _is_sent(source: str) -> bool:
    sent = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if fnmatch(source, pattern) or source.startswith(f"{pattern}/"):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize(
    "source",
    [".git", "docker/profile/admin.key", "docker/secrets/pgpass", ".demo", "tests"],
)
def test_keys_and_history_are_not_sent(source: str) -> None:
    assert not _is_sent(source)


@every_image
def test_images_run_as_a_fixed_user_who_is_not_root(stage: Stage) -> None:
    users = [one.value for one in stage.all("USER")]
    match = re.fullmatch(r"([0-9]+):([0-9]+)", users[-1])
    assert match is not None
    uid, gid = match.groups()
    assert int(uid) >= 10_000
    made = " ".join(run.value for run in stage.all("RUN"))
    assert f"--uid {uid}" in made
    assert f"--gid {gid}" in made
    order = [one.name for one in stage.instructions]
    assert "RUN" not in order[order.index("USER") :]


@every_image
def test_images_have_neither_compiler_nor_pip(stage: Stage) -> None:
    for run in stage.all("RUN"):
        words = set(run.value.split())
        assert not words & {*_COMPILERS, "python3-pip", "python3-venv", "pip"}
        assert not any(word.endswith("-dev") for word in words)


@every_image
def test_what_changes_lies_in_volumes(stage: Stage) -> None:
    (volume,) = stage.all("VOLUME")
    made = " ".join(run.value for run in stage.all("RUN"))
    for folder in volume.words():
        assert re.search(rf"install -d -m 0700 -o \S+ -g \S+ [^&]*{folder}\b", made)


def test_data_and_trust_are_volumes_apart() -> None:
    data, trust = (Path(one) for one in _serving().only("VOLUME").words())
    assert data not in trust.parents
    assert trust not in data.parents
    words = _serving().only("ENTRYPOINT").words()
    assert words[words.index("--data") + 1] == str(data)
    assert words[words.index("--trust") + 1] == str(trust)


def test_the_service_is_asked_for_its_health_where_it_listens() -> None:
    stage = _serving()
    words = stage.only("ENTRYPOINT").words()
    _, _, port = words[words.index("--listen") + 1].partition(":")
    assert stage.only("EXPOSE").value == port
    check = stage.only("HEALTHCHECK")
    assert check.words() == ["sh", "-c", "kbs health || exit 1"]
    assert f"KBS_SERVER=https://127.0.0.1:{port}" in stage.only("ENV").value


@every_image
def test_entry_points_are_commands_with_options_that_exist(stage: Stage) -> None:
    words = stage.only("ENTRYPOINT").words()
    if words[0] == "kbs":
        assert unknown_options(words) == []
    else:
        assert words == ["software-tpm"]


def unknown_options(words: list[str]) -> list[str]:
    """Return the options that the command does not have."""
    command: click.Command = kbs
    context = click.Context(kbs)
    rest = words[1:]
    while rest and isinstance(command, click.Group):
        found = command.get_command(context, rest.pop(0))
        assert found is not None, words
        command = found
    known = {name for parameter in command.params for name in parameter.opts}
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    return [word for word in given if word not in known]


def test_an_option_that_does_not_exist_is_found() -> None:
    assert unknown_options(["kbs", "serve", "--no-such", "x"]) == ["--no-such"]


# -- the compose file ------------------------------------------------------------------


def _compose() -> dict[str, Any]:
    document = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    assert isinstance(document, dict)
    return document


COMPOSE = _compose()
SERVICES: Mapping[str, dict[str, Any]] = COMPOSE["services"]
every_service = pytest.mark.parametrize("name", SERVICES)


@every_service
def test_services_are_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", service["user"])
    for forbidden in ("privileged", "cap_add", "devices", "pid", "ipc", "env_file"):
        assert forbidden not in service
    for mount in service["tmpfs"]:
        assert {"noexec", "nosuid", "nodev"} <= set(mount.partition(":")[2].split(","))


@every_service
def test_services_have_limits_and_never_swap(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["pids_limit"] > 0
    assert service["cpus"] > 0
    assert service["ulimits"]["core"] == 0


@every_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@every_service
def test_images_are_pinned_and_run_as_their_own_user(name: str) -> None:
    service = SERVICES[name]
    assert is_pinned(service["image"])
    if "build" not in service:
        return
    build = service["build"]
    path = (DOCKER / build["context"] / build["dockerfile"]).resolve()
    stages = parse_dockerfile(path)
    target = build.get("target")
    (stage,) = [one for one in stages if one.name == target] if target else stages[-1:]
    assert service["user"] == stage.only("USER").value


@every_service
def test_secrets_are_files_and_never_in_the_environment(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if _SECRET.search(key) or _SECRET.search(str(value)):
            assert str(value).startswith("/run/secrets/")
            assert Path(value).name in SERVICES[name]["secrets"]
    # user@host, never user:password@host
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", yaml.safe_dump(SERVICES[name]))


@every_service
def test_mounts_are_declared_and_the_host_is_not_mounted(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, dict):
            assert volume["source"] == "${KBS_PROFILE_FOLDER:-./profile}"
            continue
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert rest.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


@every_service
def test_networks_secrets_and_dependencies_are_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", [])) <= set(SERVICES)


def test_the_database_is_reached_by_the_broker_only() -> None:
    assert COMPOSE["networks"]["back"] == {"internal": True}
    on_it = {
        name for name, one in SERVICES.items() if "back" in one.get("networks", [])
    }
    assert on_it == {"database", "broker-postgresql", "init-postgresql"}


def test_only_the_broker_starts_without_being_named() -> None:
    assert [name for name, one in SERVICES.items() if "profiles" not in one] == [
        "broker"
    ]
    profiles = {
        one for service in SERVICES.values() for one in service.get("profiles", [])
    }
    assert profiles == {"setup", "postgresql", "end-to-end"}


def test_the_key_encryption_key_and_the_data_go_to_the_broker_only() -> None:
    with_trust = {
        name
        for name, one in SERVICES.items()
        if any(str(volume).startswith("trust:") for volume in one.get("volumes", []))
    }
    assert with_trust == {
        "broker", "broker-postgresql", "init", "init-postgresql"
    }  # fmt: skip


@every_service
def test_commands_of_services_have_options_that_exist(name: str) -> None:
    service = SERVICES[name]
    if not service["image"].startswith("kbs:"):
        return
    entry = service.get("entrypoint", _serving().only("ENTRYPOINT").words())
    command = service.get("command", [])
    if len([*entry, *command]) > 1:
        assert unknown_options([*entry, *command]) == []


# -- units -----------------------------------------------------------------------------


def _unit(path: Path) -> Mapping[str, list[str]]:
    parser = configparser.RawConfigParser(
        strict=False, comment_prefixes=("#",), delimiters=("=",)
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    return {key: shlex.split(value) for key, value in parser["Service"].items()}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_commands_with_options_that_exist(path: Path) -> None:
    words = _unit(path)["ExecStart"]
    assert words[0] == "/usr/bin/kbs"
    assert unknown_options(["kbs", *words[1:]]) == []


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_give_no_privileges(path: Path) -> None:
    unit = _unit(path)
    for name in (
        "NoNewPrivileges",
        "ProtectHome",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RestrictNamespaces",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ):
        assert unit[name] == ["yes"], name
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["DevicePolicy"] == ["closed"]
    assert unit["SystemCallArchitectures"] == ["native"]
    assert "SystemCallFilter" in unit
    assert "CapabilityBoundingSet" in unit
    assert unit["LimitCORE"] == ["0"]


def test_the_broker_is_not_root() -> None:
    unit = _unit(DOCKER / "systemd" / "kbs.service")
    assert unit["User"] == ["kbs"]
    assert unit["CapabilityBoundingSet"] == []


# -- fail-open -------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=_where)
def test_nothing_that_is_shipped_fails_open(path: Path) -> None:
    if path.suffix == ".md":
        return
    lines = path.read_text("utf-8").splitlines()
    said = [line for line in lines if not line.lstrip().startswith("#")]
    words = {
        word.partition("=")[0]
        for line in said
        for word in re.split(r'[\s",\[\]]', line)
    }
    assert not words & {*FAIL_OPEN, "--insecure", "--trusted-host", "--privileged"}
    assert "sample" not in words


def test_whatever_serves_serves_production() -> None:
    unit = _unit(DOCKER / "systemd" / "kbs.service")["ExecStart"]
    assert "--production" in unit
    assert "--production" in _serving().only("ENTRYPOINT").words()
    for name, service in SERVICES.items():
        if service["image"].startswith("kbs:") and "entrypoint" in service:
            assert service["entrypoint"] == ["kbs"], name
            assert service.get("command", ["init"])[0] == "init", name
