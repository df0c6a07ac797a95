"""Limits and the service score the same rows alike, or their speed could not be compared."""

import asyncio
import json

import httpx
import numpy as np
import pytest
from starlette.types import ASGIApp

from service.detector import Detector
from service.runtime import Runtime
from tests.load import bodies
from tests.load.limits import APPLICATIONS
from tests.server import MODELS


def post(application: ASGIApp, content: bytes, headers: tuple[str, ...]) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://limit") as client:
            return await client.post("/score", content=content, headers=dict(line.split(": ") for line in headers))

    return asyncio.run(send())


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """The service's scores of three rows."""
    detector = Detector.load(MODELS / "kddcup99" / "1", Runtime("cpu"))
    return detector.score(bodies.rows_of(3).astype(np.float32)).scores


@pytest.mark.parametrize("name", ["orjson", "usual"])
def test_json_is_scored_as_the_service_scores_it(name: str, scores: np.ndarray) -> None:
    answer = post(APPLICATIONS[name](), bodies.document(bodies.rows_of(3)), bodies.JSON)
    assert answer.json()["scores"] == pytest.approx(scores, rel=1e-6)


def test_float32_values_are_scored_as_the_service_scores_them(scores: np.ndarray) -> None:
    answer = post(APPLICATIONS["raw"](), bodies.float32(bodies.rows_of(3)), bodies.FLOAT32)
    assert np.frombuffer(answer.content, dtype="<f4") == pytest.approx(scores, rel=1e-6)


def test_the_constant_answer_is_one() -> None:
    assert post(APPLICATIONS["constant"](), b"anything", ()).json() == {"scores": [0.5]}


def test_bodies_hold_the_same_rows() -> None:
    x = bodies.rows_of(2)
    tensor = json.loads(bodies.v2(x))["inputs"][0]
    assert np.array_equal(np.reshape(tensor["data"], tensor["shape"]), x)
    assert np.array_equal(json.loads(bodies.document(x))["vectors"], x)
    assert np.array_equal(np.frombuffer(bodies.float32(x), dtype="<f4").reshape(x.shape), x.astype(np.float32))
