"""A real Prometheus scrapes a service that asks for keys, if it has one."""

from pathlib import Path

import pytest

from service.keys import add_key, revoke_key
from tests.monitoring.parts import prometheus, wait_for
from tests.server import serving

pytestmark = pytest.mark.monitoring


def test_prometheus_needs_a_key_and_notices_when_it_is_revoked(tmp_path: Path) -> None:
    keys, secret = tmp_path / "keys", tmp_path / "scrape.secret"
    secret.write_text(add_key(keys, "prometheus", ["metrics"]) + "\n")
    add_key(keys, "ci", ["score"])
    with (
        serving(tmp_path / "log", keys=keys) as server,
        server.client(),
        prometheus(tmp_path, "127.0.0.1:9", secret=secret) as scraping,
    ):

        def up() -> list[float]:
            return list(scraping.query('up{job="radogaga"}').values())

        scraping.scrape([server.url()])
        wait_for(lambda: up() == [1.0], of="a scrape with a key")
        wait_for(lambda: scraping.query("radogaga_keys_stale"), of="the metric")
        revoke_key(keys, "prometheus")
        wait_for(lambda: up() == [0.0], of="a scrape that is refused")
        secret.write_text(add_key(keys, "prometheus-2", ["metrics"]) + "\n")
        wait_for(lambda: up() == [1.0], of="a scrape with the new key")
    assert '"key":"prometheus"' in server.log.read_text()
