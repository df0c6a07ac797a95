"""Rows far outside of training get the detector's own bits in every format, and never NaN or infinity."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from service.detector import Detector
from service.graphs import Matrix
from service.runtime import Runtime
from tests.server import DATASETS, MODELS, SECONDS, serving
from tests.service.test_workers import until
from tests.service.v2_requests import binary_tensor, outputs_of, packed, tensor

LARGEST = float(np.finfo(np.float32).max)


def far_rows(dataset: str) -> NDArray[np.float32]:
    newest = max((MODELS / dataset).iterdir(), key=lambda folder: int(folder.name))
    x = np.asarray(json.loads((newest / "examples.json").read_text())["x"])
    generator = np.random.default_rng(1)
    rows = [x, *(sign * (x[:2] + 1) * 10.0**k for k in (1, 5, 19, 30, 38) for sign in (1, -1))]
    rows.append(generator.choice([-LARGEST, LARGEST], (8, x.shape[1])))
    clipped: NDArray[np.float32] = np.clip(np.concatenate(rows), -LARGEST, LARGEST).astype(np.float32)
    return clipped


def arrow(x: NDArray[np.float32]) -> bytes:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    sink = io.BytesIO()
    table = pa.table({"vectors": flat})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def npy(x: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x)
    return stream.getvalue()


def csv(x: NDArray[np.float32]) -> bytes:
    return "\n".join(",".join(repr(float(value)) for value in row) for row in x).encode()


def column(content: bytes) -> NDArray[np.float64]:
    return np.asarray(pa.ipc.open_stream(content).read_all()["scores"].to_numpy(), dtype=np.float64)


def csv_column(content: bytes) -> NDArray[np.float64]:
    first, *lines = content.decode().split()
    return np.array([float(line.split(",")[first.split(",").index("scores")]) for line in lines])


Write = Callable[[NDArray[np.float32]], bytes]
Read = Callable[[bytes], NDArray[np.float64]]
Scored = tuple[str, list[float]]
"""What tells the worker from others, and the scores."""

FORMATS: dict[str, tuple[Write, Read]] = {
    "application/vnd.apache.arrow.stream": (arrow, column),
    "application/x-npy": (npy, lambda content: np.load(io.BytesIO(content)).astype(np.float64)),
    "application/octet-stream": (
        lambda x: x.astype("<f4").tobytes(),
        lambda content: np.frombuffer(content, "<f4").astype(np.float64),
    ),
    "text/csv": (csv, csv_column),
    "application/json": (
        lambda x: json.dumps({"vectors": x.astype(float).tolist()}).encode(),
        lambda content: np.array(json.loads(content, parse_constant=refuse)["scores"]),
    ),
}


def refuse(name: str) -> None:
    raise AssertionError(name)


def post(client: TestClient | httpx.Client, dataset: str, x: NDArray[np.float32], kind: str) -> httpx.Response:
    headers, path = {"content-type": kind, "accept": kind}, f"/score?dataset={dataset}"
    content = FORMATS[kind][0](x)
    if kind == "application/json":
        content, path = json.dumps({"dataset": dataset, **json.loads(content)}).encode(), "/score"
    response: httpx.Response = client.post(path, content=content, headers=headers)
    return response


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_far_rows_have_the_same_bits_in_every_format(app: FastAPI, client: TestClient, dataset: str, kind: str) -> None:
    x = far_rows(dataset)
    expected = app.state.service.repository.find(dataset).score(x).scores
    assert np.isfinite(expected).all()
    response = post(client, dataset, x, kind)
    assert response.status_code == 200, response.text
    scores = FORMATS[kind][1](response.content)
    assert np.array_equal(scores.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dataset", DATASETS)
def test_far_rows_have_the_same_bits_by_the_inference_protocol(
    app: FastAPI, client: TestClient, dataset: str, binary: bool
) -> None:
    x = far_rows(dataset)
    describe = binary_tensor if binary else tensor
    document = {"inputs": [describe(x)], "parameters": {"binary_data_output": binary}}
    body, headers = packed(document, x.tobytes()) if binary else (json.dumps(document).encode(), {})
    found = outputs_of(client.post(f"/v2/models/{dataset}/infer", content=body, headers=headers))
    expected = app.state.service.repository.find(dataset).score(x)
    assert np.array_equal(found["scores"], expected.scores)
    assert np.array_equal(found["anomalies"], expected.anomalies)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_not_finite_leaves_in_no_format(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch, kind: str, value: float
) -> None:
    detector: Detector = app.state.service.repository.find("thyroid")
    real = detector._graphs["scorer"]

    def run(rows: Matrix) -> Matrix:
        result = real.run(rows)
        result[[3, 5]] = value
        return result

    monkeypatch.setitem(detector._graphs, "scorer", SimpleNamespace(run=run))
    response = post(client, "thyroid", far_rows("thyroid"), kind)
    assert (response.status_code, response.json()["kind"]) == (422, "result_not_finite")
    assert "[3] has values so large that its result is not a finite number." in response.json()["detail"]


@pytest.mark.slow
def test_every_worker_and_way_through_the_service_gives_the_same_bits(tmp_path: Path) -> None:
    """Two processes, micro-batches of up to 32 rows, and long bodies that are scored in a thread."""
    x = far_rows("kddcup99")
    expected = Detector.load(MODELS / "kddcup99" / "2", Runtime("cpu")).score(x).scores.tolist()
    generator = np.random.default_rng(2)
    starts = [(int(a), int(generator.choice([1, 1, 1, 3, 9]))) for a in generator.integers(0, len(x) - 9, 400)]

    async def score(url: str) -> list[Scored]:
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=8)
        async with httpx.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False, limits=limits) as client:

            async def one(start: int, size: int) -> Scored:
                rows = x[start : start + size].astype(float).tolist() * (40 if size == 9 else 1)
                answer = await client.post("/score", json={"dataset": "kddcup99", "vectors": rows})
                return answer.headers["x-request-id"][:16], answer.json()["scores"]

            return await asyncio.gather(*(one(start, size) for start, size in starts))

    with serving(tmp_path / "log", workers=2, max_in_flight=1000, max_batch_rows=32, max_wait_us=500) as server:
        until(lambda: sum(line["message"] == "ready" for line in server.lines()) == 2, server)
        found = asyncio.run(score(server.url()))
    assert len({worker for worker, _ in found}) == 2
    for (_, scores), (start, size) in zip(found, starts, strict=True):
        assert scores == expected[start : start + size] * (40 if size == 9 else 1)
