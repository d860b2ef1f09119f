"""Settings: what is read from the environment, and what may not be started."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kbs.core.errors import ConfigurationError
from kbs.serving import configure_logging
from kbs.settings import (
    LOG_LEVELS,
    MAX_EVIDENCE_MIB,
    MAX_REASON,
    Settings,
    default_log_level,
)


def _settings(tmp_path: Path, **members: object) -> Settings:
    folders = {"data": tmp_path / "data", "trust": tmp_path / "trust"}
    return Settings(**folders, **members)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "INFO"),
        ({"KBS_LOG_LEVEL": "DEBUG"}, "DEBUG"),
        ({"KBS_LOG_LEVEL": "warning"}, "WARNING"),
    ],
)
def test_the_log_level_of_the_environment(environ: dict[str, str], level: str) -> None:
    assert default_log_level(environ) == level


def test_settings_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KBS_LOG_LEVEL", raising=False)
    assert _settings(tmp_path).log_level == "INFO"
    monkeypatch.setenv("KBS_LOG_LEVEL", "error")
    assert _settings(tmp_path).log_level == "ERROR"


@pytest.mark.parametrize("level", ["", "loud", "10", "INFO ", "NOTSET"])
def test_a_level_that_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("KBS_LOG_LEVEL", level)
    with pytest.raises(ConfigurationError, match="KBS_LOG_LEVEL"):
        _settings(tmp_path)


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_every_level_is_one_of_logging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    # As they were before, for the logs of other tests.
    for name in ("_srcfile", "logThreads", "logMultiprocessing", "logProcesses"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    try:
        configure_logging(_settings(tmp_path, log_level=level))
        assert root.level == getattr(logging, level)
    finally:
        root.setLevel(before)
        root.handlers[:] = handlers


@pytest.mark.parametrize("size", [-1, MAX_EVIDENCE_MIB + 1])
def test_a_cap_of_evidence_that_makes_no_sense(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigurationError, match="--evidence-max-mib"):
        _settings(tmp_path, evidence_max_mib=size)


@pytest.mark.parametrize("size", [0, 1024, MAX_EVIDENCE_MIB])
def test_a_cap_of_evidence(tmp_path: Path, size: int) -> None:
    assert _settings(tmp_path, evidence_max_mib=size).evidence_max_mib == size


@pytest.mark.parametrize("reason", ["", " ", "\t\n", "x" * (MAX_REASON + 1)])
def test_a_rollback_is_not_accepted_without_a_reason_to_keep(
    tmp_path: Path, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match="--accept-rollback"):
        _settings(tmp_path, accept_rollback=reason)


@pytest.mark.parametrize("reason", [None, "x", "disk lost", "x" * MAX_REASON])
def test_a_rollback_is_accepted_for_a_reason(
    tmp_path: Path, reason: str | None
) -> None:
    assert _settings(tmp_path, accept_rollback=reason).accept_rollback == reason


@pytest.mark.parametrize(
    ("option", "members"),
    [
        ("--dev", {"development": True}),
        ("--plain-http", {"plain_http": True}),
        ("--accept-rollback", {"accept_rollback": "disk lost"}),
    ],
)
def test_production_has_no_room_for(
    tmp_path: Path, option: str, members: dict[str, object]
) -> None:
    assert _settings(tmp_path, **members).production is False
    with pytest.raises(ConfigurationError, match=option) as caught:
        _settings(tmp_path, production=True, **members)
    assert caught.value.code == "serve.production"


def test_production_without_them_is_fine(tmp_path: Path) -> None:
    assert _settings(tmp_path, production=True).production


def test_the_trust_folder_is_never_inside_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for trust in (data, data / "trust", tmp_path / "link" / "a" / "b"):
        with pytest.raises(ConfigurationError, match="inside the data folder"):
            Settings(data=data, trust=trust)
    for trust in (tmp_path, tmp_path / "trust", tmp_path / "data2", data / ".." / "t"):
        assert Settings(data=data, trust=trust).trust == trust
