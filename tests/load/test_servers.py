"""Servers are started, measured and ended; a peer that isn't installed is named."""

from pathlib import Path

import pytest

from tests.load import servers
from tests.load.bodies import FLOATS, ROW
from tests.load.measuring import Case, live, measure
from tests.load.processes import family
from tests.load.servers import CANDIDATES, ServerError, check_installed, five_models, free_port, running

CONSTANT = "raw ASGI, constant answer"


def test_a_server_is_measured_and_ended(tmp_path: Path) -> None:
    with running(CONSTANT, tmp_path, ROW) as server:
        found = measure(server, Case(CONSTANT, ROW, 4), 0.1)
        assert family(server.pid)
    assert not family(server.pid)
    assert set(found) == {"cpu", "requests", "rows", "p50", "p90", "p99", "max", "client"}
    assert found["requests"] == found["rows"] > 0
    assert server.start_seconds > 0


def test_a_case_beside_other_requests_has_no_cpu_time(tmp_path: Path) -> None:
    with running(CONSTANT, tmp_path, ROW) as server:
        assert "cpu" not in measure(server, Case(CONSTANT, ROW, 2, disturbed=True), 0.1)


def test_a_server_that_answers_otherwise_ends_the_measurement(tmp_path: Path) -> None:
    name = "FastAPI, the usual way"
    with running(name, tmp_path, ROW) as server, pytest.raises(ServerError, match="(?s)1.1 500.*Its log ends with"):
        measure(server, Case(name, FLOATS), 0.1)


def test_a_server_that_ends_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CANDIDATES, CONSTANT, servers.limit("nonsense"))
    with pytest.raises(ServerError, match="(?s)does not score.*invalid choice: 'nonsense'"):
        live(CONSTANT, tmp_path, ROW, 0.1)


def test_a_peer_without_an_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PEERS", tmp_path)
    for name, candidate in CANDIDATES.items():
        if candidate.environment is None:
            check_installed(name)
        else:
            with pytest.raises(ServerError, match=f"{candidate.environment} is not installed"):
                check_installed(name)


def test_five_models_are_served(tmp_path: Path) -> None:
    assert len(list(five_models(tmp_path / "models").glob("*/*/manifest.json"))) == 5


def test_commands_name_the_port() -> None:
    port = free_port()
    for name, candidate in CANDIDATES.items():
        assert name.startswith("service") or str(port) in " ".join(candidate.command(port))
