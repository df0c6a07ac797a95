"""The Open Inference Protocol: its paths, and its bodies in JSON and in bytes."""

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.v2.tensors import DATATYPES
from tests.server import FOLDERS, MODELS
from tests.service.requests import COMPRESS
from tests.service.v2_requests import (
    INFER,
    JSON_BYTES,
    NAMES,
    binary_tensor,
    check_error,
    outputs_of,
    packed,
    post_binary,
    tensor,
)


@pytest.fixture(scope="module")
def x(examples: dict[str, Any]) -> np.ndarray:
    return np.asarray(examples["x"], dtype="<f4")


@pytest.fixture(scope="module")
def scored(client: TestClient, x: np.ndarray) -> dict[str, Any]:
    """What /score answers."""
    found: dict[str, Any] = client.post("/score", json={"dataset": "thyroid", "vectors": x.tolist()}).json()
    return found


@pytest.fixture(scope="module")
def not_ready() -> TestClient:
    """A client of an application whose models are not loaded."""
    return TestClient(create_app(Settings(models=MODELS)), raise_server_exceptions=False)


def test_the_server_is_described(client: TestClient) -> None:
    described = client.get("/v2").json()
    assert described["name"] == "radogaga"
    assert described["extensions"] == ["binary_tensor_data"]
    assert set(described) == {"name", "version", "extensions"}


def test_health(client: TestClient, not_ready: TestClient) -> None:
    assert client.get("/v2/health/live").json() == not_ready.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/thyroid", "/v2/models/thyroid/ready"])
def test_nothing_is_ready_before_the_models_are(not_ready: TestClient, path: str) -> None:
    response = not_ready.get(path)
    check_error(response, 503, "The models are being loaded. Try again in a second.")
    assert response.headers["retry-after"] == "1"
    assert not_ready.post(INFER, content=b"").status_code == not_ready.post("/v2/repository/index").status_code == 503


@pytest.mark.parametrize("version", ["", "/versions/1", "/versions/2"])
@pytest.mark.parametrize(
    ("model", "taken", "answered"),
    [
        ("thyroid", ("vectors", "FP32", [-1, 6]), [("scores", "FP64", [-1]), ("anomalies", "BOOL", [-1])]),
        ("thyroid.encoder", ("vectors", "FP32", [-1, 6]), [("latents", "FP32", [-1, 6])]),
        ("thyroid.decoder", ("latents", "FP32", [-1, 6]), [("vectors", "FP32", [-1, 6])]),
        ("kddcup99", ("vectors", "FP32", [-1, 121]), [("scores", "FP64", [-1]), ("anomalies", "BOOL", [-1])]),
    ],
)
def test_models_are_described(
    client: TestClient, model: str, version: str, taken: tuple[object, ...], answered: list[tuple[object, ...]]
) -> None:
    described = client.get(f"/v2/models/{model}{version}").json()
    assert (described["name"], described["versions"]) == (model, ["1", "2"])
    assert described["platform"] == "onnxruntime_onnx"
    assert [tuple(entry.values()) for entry in described["inputs"]] == [taken]
    assert [tuple(entry.values()) for entry in described["outputs"]] == answered
    assert client.get(f"/v2/models/{model}{version}/ready").json() == {"name": model, "ready": True}


def test_the_repository_lists_every_version(client: TestClient) -> None:
    listed = client.post("/v2/repository/index", content=b'{"ready": true}').json()
    versions = [folder.split("/") for folder in FOLDERS]
    expected = [(name, version) for name in NAMES for of, version in versions if of == name.partition(".")[0]]
    assert [(entry["name"], entry["version"]) for entry in listed] == expected
    assert all((entry["state"], entry["reason"]) == ("READY", "") for entry in listed)


def test_json_scores_are_those_of_score(client: TestClient, x: np.ndarray, scored: dict[str, Any]) -> None:
    for data in (x.tolist(), x.ravel().tolist()):
        answer = client.post(INFER, json={"inputs": [tensor(x, data=data)]}).json()
        assert answer == {
            "model_name": "thyroid",
            "model_version": "2",
            "parameters": {"threshold": scored["threshold"]},
            "outputs": [
                {"name": "scores", "datatype": "FP64", "shape": [len(x)], "data": scored["scores"]},
                {"name": "anomalies", "datatype": "BOOL", "shape": [len(x)], "data": scored["anomalies"]},
            ],
        }


@pytest.mark.parametrize("rows", [1, 3, 500])
def test_binary_scores_are_those_of_score(client: TestClient, x: np.ndarray, rows: int) -> None:
    many = np.resize(x, (rows, 6))
    expected = client.post("/score", json={"dataset": "thyroid", "vectors": many.tolist()}).json()
    document = {"inputs": [binary_tensor(many)], "parameters": {"binary_data_output": True}}
    for spaces in range(4):  # wherever the JSON ends, and the tensor begins
        found = outputs_of(post_binary(client, {**document, "pad": " " * spaces}, many.tobytes()))
        assert found["scores"].tobytes() == np.asarray(expected["scores"], dtype="<f8").tobytes()
        assert found["anomalies"].tolist() == expected["anomalies"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_versions_are_those_of_score(client: TestClient, x: np.ndarray, version: str) -> None:
    body = {"dataset": "thyroid", "version": int(version), "vectors": x.tolist()}
    response = client.post(f"/v2/models/thyroid/versions/{version}/infer", json={"inputs": [tensor(x)]})
    assert response.json()["model_version"] == version
    assert outputs_of(response)["scores"].tolist() == client.post("/score", json=body).json()["scores"]


def test_rows_go_to_latents_and_back(client: TestClient, x: np.ndarray, examples: dict[str, Any]) -> None:
    encoded = outputs_of(client.post("/v2/models/thyroid.encoder/infer", json={"inputs": [tensor(x)]}))["latents"]
    plain = client.post("/encode", json={"dataset": "thyroid", "vectors": x.tolist()}).json()["latents"]
    assert np.array_equal(encoded, np.asarray(plain, dtype="<f4"))
    document = {"inputs": [binary_tensor(encoded, "latents")], "outputs": [{"name": "vectors"}]}
    path = "/v2/models/thyroid.decoder/infer"
    decoded = outputs_of(post_binary(client, document, encoded.tobytes(), path))["vectors"]
    assert np.allclose(decoded, client.post("/decode", json={"dataset": "thyroid", "latents": plain}).json()["vectors"])
    assert decoded.shape == np.shape(examples["x_hat"])


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if "16" not in name])
def test_inputs_may_have_any_numeric_datatype(client: TestClient, datatype: str) -> None:
    whole = np.array([[1, 0, 100, 3, 2, 1], [0, 1, 2, 3, 4, 5]])
    expected = client.post("/score", json={"dataset": "thyroid", "vectors": whole.tolist()}).json()["scores"]
    binary = whole.astype(DATATYPES[datatype])
    document = {"inputs": [binary_tensor(binary, datatype=datatype)]}
    assert outputs_of(post_binary(client, document, binary.tobytes()))["scores"].tolist() == expected
    response = client.post(INFER, json={"inputs": [tensor(whole, datatype=datatype)]})
    assert outputs_of(response)["scores"].tolist() == expected


def test_half_precision_is_read(client: TestClient, x: np.ndarray) -> None:
    halves = x.astype("<f2")
    expected = client.post("/score", json={"dataset": "thyroid", "vectors": halves.tolist()}).json()["scores"]
    document = {"inputs": [binary_tensor(halves, datatype="FP16")]}
    assert outputs_of(post_binary(client, document, halves.tobytes()))["scores"].tolist() == expected


@pytest.mark.parametrize(
    ("asked", "all_binary", "binary"),
    [
        (None, False, {"scores": False, "anomalies": False}),
        ([], True, {"scores": True, "anomalies": True}),
        ([("anomalies", None)], False, {"anomalies": False}),
        ([("anomalies", True), ("scores", None)], False, {"anomalies": True, "scores": False}),
        ([("anomalies", False), ("scores", None)], True, {"anomalies": False, "scores": True}),
    ],
)
def test_outputs_come_as_they_are_asked_for(
    client: TestClient,
    x: np.ndarray,
    scored: dict[str, Any],
    asked: list[tuple[str, bool | None]] | None,
    all_binary: bool,
    binary: dict[str, bool],
) -> None:
    document: dict[str, Any] = {"id": "seven", "inputs": [tensor(x)], "parameters": {"binary_data_output": all_binary}}
    if asked is not None:
        document["outputs"] = [
            {"name": name} if own is None else {"name": name, "parameters": {"binary_data": own}} for name, own in asked
        ]
    response = client.post(INFER, json=document)
    found = outputs_of(response)
    assert list(found) == list(binary)
    for name, values in found.items():
        assert values.tolist() == scored[name]
    answer = json.loads(response.content[: int(response.headers.get(JSON_BYTES, len(response.content)))])
    assert answer["id"] == "seven"
    assert {output["name"]: "data" not in output for output in answer["outputs"]} == binary


@pytest.mark.parametrize(
    "beside",
    [
        {"model_name": "other", "unknown": [1, {"a": [None]}]},
        {"parameters": {"sequence_id": 3, "sequence_start": True, "priority": 1, "timeout": 9, "own": "x"}},
        {"parameters": None, "outputs": None, "id": None},
        {"id": "["},
        {"id": ""},
        {"outputs": [{"name": "scores", "parameters": {"own": "["}}]},
    ],
)
def test_what_nobody_knows_is_ignored(
    client: TestClient, x: np.ndarray, scored: dict[str, Any], beside: dict[str, object]
) -> None:
    for data in (x.tolist(), x.ravel().tolist()):
        response = client.post(INFER, json={**beside, "inputs": [tensor(x, data=data, own=1, parameters={"own": []})]})
        assert outputs_of(response)["scores"].tolist() == scored["scores"]
        assert response.json().get("id") == beside.get("id")


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "application/x-www-form-urlencoded"])
def test_the_content_type_does_not_matter(client: TestClient, x: np.ndarray, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    content = json.dumps({"inputs": [tensor(x)]}).encode()
    assert client.post(INFER, content=content, headers=headers).status_code == 200


@pytest.mark.parametrize(("encoding", "compress"), COMPRESS)
def test_a_compressed_body_is_inflated(
    client: TestClient, x: np.ndarray, scored: dict[str, Any], encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body, headers = packed({"inputs": [binary_tensor(x)]}, x.tobytes())
    response = client.post(INFER, content=compress(body), headers={**headers, "content-encoding": encoding})
    assert outputs_of(response)["scores"].tolist() == scored["scores"]


def test_a_bomb_is_refused(client: TestClient) -> None:
    content = zlib.compress(b"[" + bytes(30_000_000))
    response = client.post(INFER, content=content, headers={"content-encoding": "deflate"})
    text = "The body has inflated more than 1000000 bytes, at most 1000000 are read. Send fewer rows per request."
    check_error(response, 413, text)


def test_long_bodies_are_answered_alike_in_a_thread(
    client: TestClient, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"inputs": [binary_tensor(x)]}
    inline = post_binary(client, document, x.tobytes())
    monkeypatch.setattr("service.inference.INLINE_BYTES", 10)
    assert post_binary(client, document, x.tobytes()).content == inline.content


def count(client: TestClient, metric: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


def test_requests_are_counted_by_their_route(client: TestClient, examples: dict[str, Any]) -> None:
    x = np.asarray(examples["x"], dtype="<f4")
    anomalies = client.post("/score", json={"dataset": "thyroid", "vectors": x.tolist()}).json()["anomalies"]
    route = 'endpoint="/v2/models/{model}/versions/{version}/infer"'
    metrics = {
        f'radogaga_rows_total{{dataset="thyroid",{route}}}': len(x),
        'radogaga_anomalies_total{dataset="thyroid"}': sum(anomalies),
        f'radogaga_request_duration_seconds_count{{dataset="thyroid",{route},status="200"}}': 1,
        f'radogaga_request_duration_seconds_count{{dataset="",{route},status="404"}}': 1,
        'radogaga_errors_total{kind="model_not_found"}': 1,
    }
    before = {metric: count(client, metric) for metric in metrics}
    client.post("/v2/models/thyroid/versions/2/infer", json={"inputs": [tensor(x)]})
    client.post("/v2/models/unheard-of/versions/2/infer", json={"inputs": [tensor(x)]})
    assert {metric: count(client, metric) - before[metric] for metric in metrics} == metrics
    assert "unheard-of" not in client.get("/metrics").text


def test_openapi_describes_the_protocol(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{model}/versions/{version}/infer"]["post"]
    assert [parameter["name"] for parameter in infer["parameters"]] == ["model", "version"]
    assert "inputs" in infer["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(infer["responses"]) == {"200", "400", "404", "408", "413", "415", "500", "503", "504"}
    for responses in (infer["responses"], paths["/v2/models/{model}"]["get"]["responses"]):
        assert responses["404"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


def test_the_example_of_openapi_is_answered(client: TestClient) -> None:
    infer = client.get("/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]
    example = infer["requestBody"]["content"]["application/json"]["example"]
    assert client.post(INFER, json=example).status_code == 200
