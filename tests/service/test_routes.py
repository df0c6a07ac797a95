"""Every route by HTTP, with good input and with every kind of bad input."""

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service import inference
from service.app import create_app
from service.detector import Detector
from service.exchange import Exchange
from service.formats import FORMATS, Body
from service.graphs import Matrix
from service.settings import Settings
from tests.manifests import write_manifest
from tests.server import FOLDERS, MODELS
from tests.service.conftest import wait_until_ready
from tests.service.requests import JSON, ROW, body, check_problem, post


def test_score_answers_what_the_exporter_saw(client: TestClient, examples: dict[str, Any]) -> None:
    answer = client.post("/score", json={"dataset": "thyroid", "vectors": examples["x"]}).json()
    assert answer["scores"] == pytest.approx(examples["score"], rel=1e-5, abs=1e-5)
    assert answer["anomalies"] == [score >= answer["threshold"] for score in answer["scores"]]
    assert set(answer["anomalies"]) == {True, False}
    assert (answer["dataset"], answer["version"]) == ("thyroid", 2)


@pytest.mark.parametrize("shipped", FOLDERS)
def test_a_row_scores_the_same_alone_and_in_a_batch(client: TestClient, shipped: str) -> None:
    dataset, version = shipped.split("/")
    rows = json.loads((MODELS / shipped / "examples.json").read_text())["x"]
    asked = {"dataset": dataset, "version": int(version)}
    together = client.post("/score", json={**asked, "vectors": rows}).json()["scores"]
    alone = [client.post("/score", json={**asked, "vectors": [x]}).json()["scores"][0] for x in rows]
    assert together == alone


def test_encode_and_decode(client: TestClient, examples: dict[str, Any]) -> None:
    latents = client.post("/encode", json={"dataset": "thyroid", "vectors": examples["x"]}).json()
    assert np.allclose(latents["latents"], examples["z"], rtol=1e-5, atol=1e-5)
    vectors = client.post("/decode", json={"dataset": "thyroid", "latents": latents["latents"], "version": 2}).json()
    assert np.allclose(vectors["vectors"], examples["x_hat"], rtol=1e-5, atol=1e-5)
    assert (vectors["dataset"], vectors["version"]) == ("thyroid", 2)


def test_decode_names_the_row_of_a_latent_that_is_too_wide(client: TestClient) -> None:
    response = client.post("/decode", json={"dataset": "thyroid", "latents": [[0.0] * 6, [0.0] * 7]})
    check_problem(response, 422, "wrong_width", "latents[1] has 7 values, expected 6.")


def test_long_bodies_are_answered_alike_in_a_thread(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    read_at_once = Exchange.read

    def noting(exchange: Exchange, body: Body) -> tuple[Detector, Matrix]:
        threads.append(threading.current_thread().name)
        return read_at_once(exchange, body)

    monkeypatch.setattr(Exchange, "read", noting)
    monkeypatch.setattr(inference, "INLINE_BYTES", 10_000)
    answer = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW] * 900}).json()
    alone = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}).json()
    assert answer["scores"] == alone["scores"] * 900
    long, short = threads
    assert long.startswith("long-bodies")
    assert not short.startswith("long-bodies")


@pytest.mark.parametrize(("method", "path"), [("GET", "/score"), ("PUT", "/encode"), ("POST", "/datasets")])
def test_wrong_methods(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    check_problem(response, 405, "method_not_allowed", f"{path} does not take {method}.")
    assert response.headers["allow"]


def test_unknown_paths(client: TestClient) -> None:
    check_problem(client.get("/nope"), 404, "not_found", "There is nothing at /nope; /docs lists what there is.")


def test_datasets_describes_what_is_served(client: TestClient) -> None:
    listed = {entry["dataset"]: entry for entry in client.get("/datasets").json()["datasets"]}
    assert sorted(listed) == sorted(path.name for path in MODELS.iterdir() if path.is_dir())
    assert client.get("/datasets/thyroid").json() == listed["thyroid"]
    first, model = listed["thyroid"]["versions"]
    assert (first["version"], first["newest"], model["version"]) == (1, False, 2)
    manifest = json.loads((MODELS / "thyroid" / "2" / "manifest.json").read_text())
    assert model["threshold"] == manifest["threshold"]
    assert model["features"] == manifest["features"]
    assert model["metrics"] == manifest["provenance"]["metrics"]
    assert (model["columns"], model["latent_features"], model["newest"]) == (6, 6, True)
    assert model["provider"] == "CPUExecutionProvider"


def test_of_two_versions_the_newest_answers(folder: Path) -> None:
    second = folder.parent / "2"
    shutil.copytree(folder, second)
    manifest = json.loads((second / "manifest.json").read_text())
    write_manifest(second / "manifest.json", {**manifest, "version": 2, "threshold": -99.0})
    with TestClient(create_app(Settings(models=folder.parents[1]))) as client:
        wait_until_ready(client)
        described = client.get("/datasets/thyroid").json()
        newest, first = (
            client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], **version}).json()
            for version in ({}, {"version": 1})
        )
    assert described["newest"] == 2
    assert [(model["version"], model["newest"]) for model in described["versions"]] == [(1, False), (2, True)]
    assert (newest["version"], newest["threshold"], newest["anomalies"]) == (2, -99.0, [True])
    assert (first["version"], first["threshold"], first["scores"]) == (1, manifest["threshold"], newest["scores"])


def test_a_slash_at_the_end_is_another_path(client: TestClient) -> None:
    assert client.get("/datasets/", follow_redirects=False).status_code == 404


def test_what_a_client_sends_is_not_repeated_at_length(client: TestClient) -> None:
    name = "a" * 5000
    responses = [
        client.post("/score", json={"dataset": name, "vectors": [ROW]}),
        client.get(f"/datasets/{name}"),
        client.get(f"/{name}"),
        client.post("/score", content="{}", headers={"content-type": name}),
        client.post("/score", content="{}", headers={**JSON, "content-encoding": name}),
        post(client, body("[[1]], " + f'"{name}": 1')),
        client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], "version": 10**4000}),
    ]
    for response in responses:
        assert 400 <= response.status_code < 500
        assert len(response.content) < 600, response.text[:1000]


@pytest.mark.parametrize("version", ["a.b", "9.9.9"])
def test_metrics_survive_odd_wishes(client: TestClient, version: str) -> None:
    response = client.get("/metrics", headers={"accept": f"application/openmetrics-text; version={version}"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "alive"}
    models = len(list(MODELS.glob("*/*/manifest.json")))
    assert client.get("/health/ready").json() == {
        "status": "ready",
        "models": models,
        "providers": ["CPUExecutionProvider"],
        "refused": 0,
    }


@pytest.mark.parametrize("path", ["/health/ready", "/datasets", "/datasets/thyroid"])
def test_nothing_but_liveness_is_answered_before_the_models_are_loaded(path: str) -> None:
    client = TestClient(create_app(Settings(models=MODELS)))  # without its lifespan: nothing is loaded
    response = client.get(path)
    check_problem(response, 503, "not_ready", "The models are being loaded. Try again in a second.")
    assert response.headers["retry-after"] == "1"
    assert client.get("/health/live").status_code == 200
    assert client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}).status_code == 503


def test_the_docs_page_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "//" not in page.replace("://", "//").partition("<script src=")[0].replace("<!--", "")
    sources = [part.partition('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert not source.startswith("//"), source
        assert client.get(source).status_code == 200, source


def test_openapi_describes_requests_answers_and_errors(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    score = openapi["paths"]["/score"]["post"]
    vectors, records = score["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert set(vectors["properties"]) == {"dataset", "version", "vectors"}
    assert set(records["properties"]) == {"dataset", "version", "records"}
    assert vectors["additionalProperties"] is records["additionalProperties"] is False
    assert set(score["requestBody"]["content"]) == set(FORMATS)
    assert set(score["responses"]["200"]["content"]) == set(FORMATS)
    assert [parameter["name"] for parameter in score["parameters"]] == ["dataset", "version"]
    assert set(score["responses"]) == {"200", "400", "404", "406", "408", "413", "415", "422", "500", "503", "504"}
    assert "application/problem+json" in score["responses"]["422"]["content"]
    assert set(openapi["paths"]["/datasets/{name}"]["get"]["responses"]) == {"200", "404", "500", "503"}
    assert "HTTPValidationError" not in openapi["components"]["schemas"]


def test_the_documented_examples_work(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if method == "post" and "requestBody" in operation and "{" not in path:
                examples = operation["requestBody"]["content"]["application/json"]["examples"]
                for name, example in examples.items():
                    assert client.post(path, json=example["value"]).status_code == 200, (path, name)


def test_every_reference_of_openapi_leads_somewhere(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(openapi))
    assert references
    for reference in set(references):
        found = openapi
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
