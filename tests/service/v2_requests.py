"""How the tests speak the Open Inference Protocol: tensors, bodies and answers."""

import json
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient

from tests.server import DATASETS

INFER = "/v2/models/thyroid/infer"
JSON_BYTES = "inference-header-content-length"
NAMES = [f"{dataset}{suffix}" for dataset in DATASETS for suffix in ("", ".encoder", ".decoder")]
KNOWN_MODELS = f"Known models: {', '.join(NAMES)}."
DTYPES = {"FP32": "<f4", "FP64": "<f8", "BOOL": "?"}


def tensor(x: np.ndarray, name: str = "vectors", /, **changed: object) -> dict[str, Any]:
    """Describes rows in JSON; what is None is left out."""
    entry = {"name": name, "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist(), **changed}
    return {field: value for field, value in entry.items() if value is not None}


def binary_tensor(x: np.ndarray, name: str = "vectors", /, **changed: object) -> dict[str, Any]:
    """Describes rows that stand behind the JSON."""
    return tensor(x, name, **{"data": None, "parameters": {"binary_data_size": x.nbytes}, **changed})


def packed(document: object, content: bytes = b"", json_bytes: object = None) -> tuple[bytes, dict[str, str]]:
    """Returns a body of JSON and bytes, and its header."""
    text = json.dumps(document).encode()
    return text + content, {JSON_BYTES: str(len(text) if json_bytes is None else json_bytes)}


def post_binary(
    client: TestClient, document: object, content: bytes = b"", path: str = INFER, json_bytes: object = None
) -> httpx.Response:
    body, headers = packed(document, content, json_bytes)
    response: httpx.Response = client.post(path, content=body, headers=headers)
    return response


def outputs_of(response: httpx.Response) -> dict[str, np.ndarray]:
    """Reads the tensors of an answer, and checks that they add up."""
    assert response.status_code == 200, response.text
    length = response.headers.get(JSON_BYTES)
    assert response.headers["content-type"] == ("application/octet-stream" if length else "application/json")
    text = response.content[: int(length)] if length else response.content
    place, found = len(text), {}
    for output in json.loads(text)["outputs"]:
        dtype = np.dtype(DTYPES[output["datatype"]])
        if "data" in output:
            values = np.asarray(output["data"], dtype=dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(response.content[place : place + size], dtype=dtype)
            place += size
        found[output["name"]] = values.reshape(output["shape"])
    assert place == len(response.content)
    return found


def check_error(response: httpx.Response, status: int, text: str) -> None:
    assert (response.status_code, response.json()) == (status, {"error": text})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
