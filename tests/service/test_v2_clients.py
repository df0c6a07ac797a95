"""Triton's own client against a real process."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tests.server import SECONDS, Server, serving

DATASET, MODEL = "thyroid", "thyroid"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that is ready."""
    with serving(tmp_path_factory.mktemp("v2") / "log", max_batch_rows=64) as server, server.client():
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    """Triton's client."""
    with triton.InferenceServerClient(server.url().removeprefix("http://"), concurrency=4) as client:
        yield client


@pytest.fixture(scope="module")
def x(examples: dict[str, Any]) -> np.ndarray:
    return np.asarray(examples["x"], dtype=np.float32)


@pytest.fixture(scope="module")
def scored(server: Server, x: np.ndarray) -> dict[str, Any]:
    """What /score answers."""
    with server.client() as client:
        found: dict[str, Any] = client.post("/score", json={"dataset": DATASET, "vectors": x.tolist()}).json()
    return found


def sent(x: np.ndarray, name: str = "vectors", datatype: str = "FP32", binary: bool = True) -> list[triton.InferInput]:
    """Returns rows as the client sends them."""
    tensor = triton.InferInput(name, list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=binary)
    return [tensor]


def test_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(f"{MODEL}.decoder", "1")
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready(MODEL, "9")


def test_metadata(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = client.get_model_metadata(MODEL, "1")
    assert described["versions"] == ["1", "2"]
    assert described["inputs"] == [{"name": "vectors", "datatype": "FP32", "shape": [-1, 6]}]
    names = {entry["name"] for entry in client.get_model_repository_index()}
    assert {MODEL, f"{MODEL}.encoder", f"{MODEL}.decoder"} <= names


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_scores_are_those_of_score(
    client: triton.InferenceServerClient,
    x: np.ndarray,
    scored: dict[str, Any],
    binary_in: bool,
    binary_out: bool | None,
) -> None:
    asked = binary_out if binary_out is None else [triton.InferRequestedOutput("scores", binary_data=binary_out)]
    result = client.infer(MODEL, sent(x, binary=binary_in), outputs=asked, request_id="seven")
    assert result.as_numpy("scores").tolist() == scored["scores"]
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["parameters"] == {"threshold": scored["threshold"]}
    assert [output["name"] for output in result.get_response()["outputs"]] == ["scores", "anomalies"][: 2 - bool(asked)]
    if asked is None:
        assert result.as_numpy("anomalies").tolist() == scored["anomalies"]


@pytest.mark.parametrize("datatype", ["FP16", "FP64", "INT32", "UINT8"])
def test_other_datatypes(client: triton.InferenceServerClient, datatype: str) -> None:
    x = np.array([[1, 0, 1, 0, 1, 0]], dtype=np.float32)
    other = x.astype(triton_to_np_dtype(datatype))
    expected = client.infer(MODEL, sent(x)).as_numpy("scores")
    assert client.infer(MODEL, sent(other, datatype=datatype)).as_numpy("scores") == expected


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(
    client: triton.InferenceServerClient, x: np.ndarray, scored: dict[str, Any], algorithm: str
) -> None:
    result = client.infer(
        MODEL, sent(x), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    assert result.as_numpy("scores").tolist() == scored["scores"]


def test_versions(client: triton.InferenceServerClient, x: np.ndarray, scored: dict[str, Any]) -> None:
    assert client.infer(MODEL, sent(x)).get_response()["model_version"] == "2"
    assert client.infer(MODEL, sent(x), model_version="2").as_numpy("scores").tolist() == scored["scores"]
    older = client.infer(MODEL, sent(x), model_version="1")
    assert older.get_response()["model_version"] == "1"
    assert older.as_numpy("scores").tolist() != scored["scores"]


def test_latents_go_back_as_they_came(
    client: triton.InferenceServerClient, server: Server, x: np.ndarray, examples: dict[str, Any]
) -> None:
    latents = client.infer(f"{MODEL}.encoder", sent(x)).as_numpy("latents")
    assert np.allclose(latents, examples["z"], atol=1e-4)
    vectors = client.infer(f"{MODEL}.decoder", sent(latents, "latents")).as_numpy("vectors")
    with server.client() as plain:
        expected = plain.post("/decode", json={"dataset": DATASET, "latents": latents.astype(float).tolist()}).json()
    assert np.array_equal(vectors, np.asarray(expected["vectors"], dtype=np.float32))


def test_requests_at_once(client: triton.InferenceServerClient, x: np.ndarray, scored: dict[str, Any]) -> None:
    waiting = [client.async_infer(MODEL, sent(x[i : i + 1])) for i in range(len(x))]
    assert [request.get_result().as_numpy("scores")[0] for request in waiting] == scored["scores"]


def test_errors(client: triton.InferenceServerClient, x: np.ndarray) -> None:
    with pytest.raises(InferenceServerException, match='No model "nope". Known models: arrhythmia, ') as unknown:
        client.infer("nope", sent(x))
    assert unknown.value.status() == "404"
    with pytest.raises(InferenceServerException) as narrow:
        client.infer(MODEL, sent(x[:, :5].copy()))
    assert narrow.value.message() == f"vectors.shape is [{len(x)}, 5], expected [rows, 6]."
    assert narrow.value.status() == "400"
    with pytest.raises(InferenceServerException, match='0. is "latents", expected one of scores, anomalies'):
        client.infer(MODEL, sent(x), outputs=[triton.InferRequestedOutput("latents")])
    for unsupported in (client.get_model_config, client.get_inference_statistics, client.load_model):
        with pytest.raises(InferenceServerException, match="There is nothing at /v2/"):
            unsupported(MODEL)


def test_the_log_has_the_models_dataset(client: triton.InferenceServerClient, server: Server, x: np.ndarray) -> None:
    client.infer(f"{MODEL}.encoder", sent(x[:3].copy()), headers={"x-request-id": "logged"})
    deadline = time.monotonic() + SECONDS
    while not (lines := [line for line in server.lines() if line.get("request_id") == "logged"]):
        assert time.monotonic() < deadline, "it is not logged"
        time.sleep(0.01)
    (line,) = lines
    assert (line["dataset"], line["rows"], line["status"]) == (DATASET, 3, 200)
    assert line["path"] == f"/v2/models/{MODEL}.encoder/infer"
