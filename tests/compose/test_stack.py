"""The stack at work: scores through the balancer, confinement, alerts, replicas that stop, die and are replaced."""

import json
import socket
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from tests.compose.stack import Load, Stack, docker, eventually, run
from tests.server import MODELS

pytestmark = pytest.mark.compose

JSON = {"content-type": "application/json"}
RAW = {"content-type": "application/octet-stream"}
SHIPPED = sorted(path.parent for path in MODELS.glob("*/*/examples.json"))

UIDS = {"service": 10001, "balancer": 101, "prometheus": 65534, "alertmanager": 65534, "grafana": 472}


def examples(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "examples.json").read_text())
    return loaded


def thyroid(rows: int = 1) -> bytes:
    x = examples(SHIPPED[-1])["x"]
    return json.dumps({"dataset": "thyroid", "vectors": [x[row % len(x)] for row in range(rows)]}).encode()


def wide(rows: int) -> bytes:
    """Returns rows of KDDCup99 as float32."""
    x = np.array(examples(MODELS / "kddcup99" / "2")["x"], dtype="<f4")
    return np.resize(x, (rows, x.shape[1])).tobytes()


def lines(stack: Stack, service: str) -> list[str]:
    """Returns what a service's containers wrote on standard output."""
    return [line for one in stack.ids(service) for line in run("docker", "logs", one).stdout.splitlines()]


@pytest.mark.parametrize("model", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_shipped_model_answers_as_its_examples_say(stack: Stack, model: Path) -> None:
    expected = examples(model)
    request = {"dataset": model.parent.name, "version": int(model.name)}
    with stack.client() as client:
        scored = client.post("/score", json=request | {"vectors": expected["x"]}).raise_for_status().json()
        encoded = client.post("/encode", json=request | {"vectors": expected["x"]}).raise_for_status().json()
        decoded = client.post("/decode", json=request | {"latents": expected["z"]}).raise_for_status().json()
    assert scored["scores"] == pytest.approx(expected["score"], rel=1e-4, abs=1e-4)
    assert scored["anomalies"] == [score >= scored["threshold"] for score in scored["scores"]]
    np.testing.assert_allclose(encoded["latents"], expected["z"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(decoded["vectors"], expected["x_hat"], rtol=1e-4, atol=1e-4)


def test_arrow_works_although_the_image_has_not_all_of_it(stack: Stack) -> None:
    expected = examples(SHIPPED[-1])
    x = np.array(expected["x"])
    names = [feature["name"] for feature in json.loads((SHIPPED[-1] / "manifest.json").read_text())["features"]]
    batch = pa.record_batch({name: x[:, column] for column, name in enumerate(names)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream = "application/vnd.apache.arrow.stream"
    headers = {"content-type": stream, "accept": stream}
    with stack.client() as client:
        answer = client.post("/score?dataset=thyroid", headers=headers, content=sink.getvalue().to_pybytes())
    assert (answer.status_code, answer.headers["content-type"]) == (200, stream)
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table["scores"].to_pylist() == pytest.approx(expected["score"], rel=1e-4, abs=1e-4)


def test_long_bodies_are_answered_and_too_long_ones_refused(stack: Stack) -> None:
    """Whether they say how long they are or not."""
    path, rows = "/score?dataset=kddcup99", 16384
    score = np.resize(np.array(examples(MODELS / "kddcup99" / "2")["score"]), rows)
    megabytes = [b" " * 1_000_000] * 40
    with stack.client() as client:
        for content in (wide(rows), iter([wide(rows // 2)] * 2)):
            answer = client.post(path, headers=RAW | {"accept": "application/json"}, content=content)
            assert answer.status_code == 200, answer.text
            np.testing.assert_allclose(answer.json()["scores"], score, rtol=1e-4, atol=1e-4)
        for content in (b"".join(megabytes), iter(megabytes)):
            try:
                answer = client.post(path, headers=RAW, content=content)
            except httpx.TransportError:  # the connection was closed while we were still sending
                continue
            assert (answer.status_code, answer.json()["kind"]) == (413, "body_too_large")
        assert client.post("/score", headers=JSON, content=thyroid()).status_code == 200


def test_without_a_replica_the_balancer_says_so_in_the_services_own_form(stack: Stack) -> None:
    (replica,) = stack.ids("service")
    docker("stop", replica)
    try:
        with stack.client() as client:
            answers = [
                client.post("/score", headers=JSON | {"x-request-id": "me"}, content=thyroid()) for _ in range(5)
            ]
    finally:
        docker("start", replica)
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
        assert (answer.headers["retry-after"], answer.headers["x-request-id"]) == ("1", "me")
        assert (answer.json()["status"], answer.json()["kind"], answer.json()["request_id"]) == (
            503,
            "no_replica",
            "me",
        )
    with stack.client() as client:
        eventually(lambda: client.post("/score", headers=JSON, content=thyroid()).status_code == 200, "an answer", 30)


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/metrics?name=up", "/x/../metrics"])
def test_metrics_stay_inside(stack: Stack, path: str) -> None:
    with socket.create_connection(("127.0.0.1", stack.ports["balancer"]), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["kind"] == "not_found"


def test_a_request_has_one_id_everywhere(stack: Stack) -> None:
    sent = "from-the-client"
    with stack.client() as client:
        kept = client.post("/score", headers=JSON | {"x-request-id": sent}, content=thyroid())
        replaced = client.post("/score", headers=JSON | {"x-request-id": 'no "id"'}, content=thyroid())
    assert kept.headers.get_list("x-request-id") == [sent]
    (new,) = replaced.headers.get_list("x-request-id")
    for one in (sent, new):
        for service in ("balancer", "service"):
            logged = eventually(partial(with_id, stack, service, one), f"{one} in the log of {service}", 10)
            assert len(logged) == 1


def with_id(stack: Stack, service: str, request_id: str) -> list[str]:
    return [line for line in lines(stack, service) if json.loads(line).get("request_id") == request_id]


@pytest.mark.parametrize("service", ["service", "balancer"])
def test_standard_output_has_json_lines(stack: Stack, service: str) -> None:
    written = lines(stack, service)
    assert len(written) > 3
    assert all({"time", "level", "logger"} <= json.loads(line).keys() for line in written)


@pytest.mark.parametrize("service", UIDS)
def test_a_container_can_do_no_more_than_it_has_to(stack: Stack, service: str) -> None:
    for one in stack.inspect(service):
        host = one["HostConfig"]
        assert (host["ReadonlyRootfs"], host["Privileged"], host["CapAdd"]) == (True, False, None)
        assert host["Memory"] == host["MemorySwap"] > 0
        assert min(host["NanoCpus"], host["PidsLimit"]) > 0
        status = Path(f"/proc/{one['State']['Pid']}/status").read_text()
        found = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
        assert found["Uid"] == [str(UIDS[service])] * 4
        assert found["NoNewPrivs"] == ["1"]
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(found[kind][0], 16) == 0, kind


def test_a_replica_can_write_nowhere_but_to_tmp_and_run_nothing_from_there(stack: Stack) -> None:
    program = """
import errno, json, os, subprocess
found = {}
for folder in ("/", "/models", "/opt/radogaga/bin", "/etc", "/tmp"):
    try:
        open(f"{folder}/written", "w").write("#!/usr/bin/env python\\n")
        found[folder] = "written"
    except OSError as error:
        found[folder] = errno.errorcode[error.errno]
os.chmod("/tmp/written", 0o755)
try:
    subprocess.run(["/tmp/written"])
except OSError as error:
    found["run"] = errno.errorcode[error.errno]
os.remove("/tmp/written")
print(json.dumps(found))"""
    found = json.loads(stack.python(stack.ids("service")[0], program))
    assert found == {
        **dict.fromkeys(("/", "/models", "/opt/radogaga/bin", "/etc"), "EROFS"),
        "/tmp": "written",  # noqa: S108
        "run": "EACCES",
    }


def test_replicas_are_in_a_network_that_leads_nowhere(stack: Stack) -> None:
    for one in stack.inspect("service"):
        (network,) = one["NetworkSettings"]["Networks"]
        assert docker("network", "inspect", "--format", "{{.Internal}}", network).strip() == "true"


def test_ports_are_open_on_the_loopback_interface_only(stack: Stack) -> None:
    assert not any(places for one in stack.inspect("service") for places in one["NetworkSettings"]["Ports"].values())
    for service, port in stack.ports.items():
        (one,) = stack.inspect(service)
        published = [place for places in one["NetworkSettings"]["Ports"].values() for place in places or []]
        assert published == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
        for network in one["NetworkSettings"]["Networks"].values():
            if network["Gateway"]:  # the host's own address there
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((network["Gateway"], port), timeout=5)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_grafana_is_healthy(stack: Stack) -> None:
    """Where a stand-in has its place, this only says that all that it is given parses."""
    with stack.client("grafana") as client:
        assert client.get("/api/health").raise_for_status().json()["database"] == "ok"


def test_three_replicas_serve_and_prometheus_sees_each(stack: Stack, replicas: list[str]) -> None:
    assert len(replicas) == 3
    addresses = stack.addresses()
    eventually(lambda: stack.query('up{job="radogaga"} == 1').keys() == addresses, "a scrape of every replica")
    with Load(stack, [("/score", JSON, thyroid())], threads=6).running() as load:
        load.more(600)
    assert load.answers == {"200": load.count}
    expression = 'sum by (instance) (radogaga_rows_total{job="radogaga",endpoint="/score"})'

    def shares() -> dict[str, float] | None:
        rows = stack.query(expression)
        return rows if rows.keys() == addresses and sum(rows.values()) >= load.count else None

    rows = eventually(shares, "every row in Prometheus")
    print(f"rows by replica: {rows}")
    assert min(rows.values()) > load.count / 10


def alerts(stack: Stack, name: str, service: str) -> list[Any]:
    """Returns the firing alerts of a name, as Prometheus or Alertmanager has them."""
    with stack.client(service) as client:
        if service == "prometheus":
            found = client.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
            return [one for one in found if one["labels"]["alertname"] == name and one["state"] == "firing"]
        found = client.get("/api/v2/alerts").raise_for_status().json()
        return [one for one in found if one["labels"]["alertname"] == name and one["status"]["state"] == "active"]


def test_a_lost_replica_is_told_to_alertmanager(stack: Stack, replicas: list[str]) -> None:
    known = 'max_over_time(min_over_time(job:up:sum{job="radogaga"}[2m])[15m:30s]) == 3'
    eventually(lambda: stack.query(known), "three replicas that were there for 2 minutes", seconds=300)
    assert alerts(stack, "RadogagaReplicaLost", "prometheus") == []
    docker("stop", replicas[0])
    for service in ("prometheus", "alertmanager"):
        found = eventually(partial(alerts, stack, "RadogagaReplicaLost", service), f"the alert in {service}")
        assert [one["annotations"]["summary"] for one in found] == ["A replica is gone, 2 left."]
    print(*(f"{one['labels']['alertname']} since {one['startsAt']}: {one['annotations']['summary']}" for one in found))


def test_a_replica_stops_and_no_request_fails(stack: Stack, replicas: list[str]) -> None:
    requests = [("/score", JSON, thyroid()), ("/score?dataset=kddcup99", RAW, wide(4096))]
    with Load(stack, requests, threads=4).running() as load:
        for replica in replicas[:2]:
            load.more(500)
            docker("stop", replica)
            assert docker("inspect", "--format", "{{.State.ExitCode}}", replica).strip() == "0"
            load.more(500)
            docker("start", replica)
            eventually(partial(is_healthy, replica), "a healthy replica")
        load.more(500)
    print(f"{load.count} requests, answered {load.answers}")
    assert load.count >= 2500
    assert load.answers == {"200": load.count}


def is_healthy(container: str) -> bool:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


def test_replicas_are_replaced_and_no_request_fails(stack: Stack, replicas: list[str]) -> None:
    """A changed setting arrives, for the new ones take 99 rows at most."""
    with Load(stack, [("/score", JSON, thyroid())], threads=4).running() as load:
        load.more(200)
        done = stack.command("docker/roll.sh", RADOGAGA_MAX_ROWS=99)
        assert done.returncode == 0, done.stderr
        load.more(200)
    print(f"{load.count} requests, answered {load.answers}")
    assert load.count >= 2000
    assert load.answers == {"200": load.count}
    new = stack.ids("service")
    assert len(new) == 3
    assert not set(new) & set(replicas)
    with stack.client() as client:
        answers = [client.post("/score", headers=JSON, content=thyroid(100)) for _ in range(9)]
    assert {(answer.status_code, answer.json()["kind"]) for answer in answers} == {(413, "too_many_rows")}


def test_replicas_that_do_not_start_replace_nobody(stack: Stack, replicas: list[str]) -> None:
    with Load(stack, [("/score", JSON, thyroid())], threads=2).running() as load:
        done = stack.command("docker/roll.sh", RADOGAGA_PROVIDER="cuda", ROLL_SECONDS=60)
    assert done.returncode == 1
    assert "the new replicas did not become healthy, the old ones stay" in done.stderr
    assert "RADOGAGA_PROVIDER is 'cuda'" in done.stderr
    assert load.answers == {"200": load.count}
    assert sorted(stack.ids("service")) == sorted(replicas)


def test_there_must_be_replicas_to_replace(folder: Path) -> None:
    done = Stack(folder, "radogaga-test-empty").command("docker/roll.sh")
    assert done.returncode == 1
    assert "there are no replicas to replace" in done.stderr


def test_a_replica_that_runs_out_of_memory_is_killed_and_started_anew(stack: Stack) -> None:
    """Long bodies of many short numbers need more than what is left beside the models in 128 MB."""
    stack.up(1, SERVICE_MEMORY="128m")
    (replica,) = stack.ids("service")
    body = b'{"dataset":"kddcup99","vectors":[' + b",".join([b"[" + b",".join([b"0"] * 121) + b"]"] * 16384) + b"]}"
    with Load(stack, [("/score", JSON, body)], threads=8).running():
        eventually(lambda: restarts(replica), "a restart")
    eventually(lambda: "oom" in events(replica), "an event that says why")
    eventually(partial(is_healthy, replica), "a healthy replica")
    with stack.client() as client:
        assert client.post("/score", headers=JSON, content=thyroid()).status_code == 200
    stack.up(1)


def events(container: str) -> list[str]:
    words = ("--since", "10m", "--until", "0s", "--filter", f"container={container}", "--format", "{{.Action}}")
    return docker("events", *words).split()


def restarts(container: str) -> int:
    return int(docker("inspect", "--format", "{{.RestartCount}}", container))
