"""What the README shows is so: its commands run, and its request gets its answer."""

import copy
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tests.server import MODELS, ROOT, serving
from training.__main__ import parser
from training.experiments import EXPERIMENTS

README = (ROOT / "README.md").read_text()
TWO_COMMANDS, REQUEST, RECORDS, CSV, INFERENCE, DEPLOY, TRAINING, OWN, REPRODUCTION = re.findall(
    r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
)
(TRITON,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ANSWER, PROBLEM, INFERRED = (
    json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
)

MAKE = ["make", "--no-print-directory", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.serving"]
"""make, in the environment that runs the tests and without installing anything into it."""


SECONDS_TO_APPEAR = 10.0


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def send(curl: str, port: str) -> httpx.Response:
    """Sends what a curl command would."""
    words = shlex.split(curl)
    assert words[:2] == ["curl", "-s"]
    url, *options = words[2:]
    given = dict(zip(options[::2], options[1::2], strict=True))
    name, _, value = given.pop("-H", "content-type: application/x-www-form-urlencoded").partition(": ")
    body = given.pop("-d", None) or given.pop("--data-binary")
    assert not given
    return httpx.post(url.replace(":8000", f":{port}"), content=body, headers={name: value}, trust_env=False)


def test_make_serve_answers_the_documented_request(tmp_path: Path) -> None:
    assert commands(TWO_COMMANDS)[0] == ["make", "serve"]
    with serving(tmp_path / "log", [*MAKE, "serve"]) as server, server.client() as client:
        answer = send(REQUEST, str(client.base_url.port)).json()
        named = send(CSV, str(client.base_url.port)).json()
        raw = send(RECORDS, str(client.base_url.port)).json()
    assert (raw["dataset"], len(raw["scores"]), len(raw["anomalies"])) == ("kddcup99", 1, 1)
    assert named["scores"] == answer["scores"][1:]
    assert answer.pop("scores") == pytest.approx(ANSWER["scores"], rel=1e-4, abs=1e-4)
    assert answer == {name: value for name, value in ANSWER.items() if name != "scores"}


def test_the_documented_deployment_names_files_that_are_there() -> None:
    *compose, roll = commands(DEPLOY)
    assert os.access(ROOT / roll[0], os.X_OK)
    for words in compose:
        assert words[:2] == ["docker", "compose"]
        assert "--wait" in words
        files = [file for option, file in itertools.pairwise(words) if option == "-f"]
        assert all((ROOT / file).is_file() for file in ["docker-compose.yml", *files])


def test_the_documented_inference_requests_get_their_answers(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server, server.client() as client:
        port = str(client.base_url.port)
        answer = send(INFERENCE, port).json()
        done = subprocess.run(
            [sys.executable, "-c", TRITON.replace(":8000", f":{port}")], capture_output=True, text=True, check=True
        )
    inferred = copy.deepcopy(INFERRED)
    assert answer["outputs"][0].pop("data") == pytest.approx(inferred["outputs"][0].pop("data"), rel=1e-4)
    assert answer == inferred
    printed, shown = (re.findall(r"-?\d+\.\d+|True|False", text) for text in (done.stdout, TRITON.rpartition("#")[2]))
    assert [float(number) for number in printed[:2]] == pytest.approx([float(number) for number in shown[:2]], rel=1e-4)
    assert printed[2:] == shown[2:] == ["False", "True"]


def test_make_test_runs_the_tests() -> None:
    assert commands(TWO_COMMANDS)[1:] == [["make", "test"]]
    complete = f"--old-file={sys.prefix}/.complete"
    done = subprocess.run([*MAKE, complete, "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.prefix}/bin/python -m pytest\n"


def test_the_problem_is_a_real_one(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server, server.client() as client:
        body = {"dataset": "thyroid", "vectors": [[0.0, 0.0, None, 0.0, 0.0, 0.0]]}
        answer = client.post("/score", json=body, headers={"x-request-id": PROBLEM["request_id"]}).json()
    assert answer == PROBLEM


def test_the_training_commands_are_understood() -> None:
    lines = commands(TRAINING)
    assert [words[3] for words in lines] == ["list", "fit", "evaluate"]
    for words in lines:
        assert words[:3] == [".venv/bin/python", "-m", "training"]
        assert parser().parse_args(words[3:])
    subprocess.run([sys.executable, *lines[0][1:]], cwd=ROOT, check=True, capture_output=True)


def test_the_worked_example_works(tmp_path: Path) -> None:
    """Makes the table, fits it, scores the file and asks a running service, which finds the model by itself."""
    program, (fit, score), curl = worked_example()
    models = tmp_path / "models"
    shutil.copytree(MODELS / "thyroid", models / "thyroid")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with serving(tmp_path / "log", models=models) as server, server.client() as client:
        for arguments in (["-c", program], fit[1:], score[1:]):
            subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, env=environment, capture_output=True)
        deadline = time.monotonic() + SECONDS_TO_APPEAR
        while (answer := send(curl, str(client.base_url.port))).status_code != httpx.codes.OK:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)
    assert answer.json()["anomalies"] == [False]
    assert answer.json()["p_values"][0] > 0.05
    scored = pq.read_table(tmp_path / "scored.parquet")
    assert sum(scored["anomaly"].to_pylist()[:20]) > 10  # malignant ones, nearly all


def worked_example() -> tuple[str, list[list[str]], str]:
    """Takes the worked example apart: the program that makes the table, two commands, and the request."""
    python, program, rest = OWN.split("'", 2)
    assert python == ".venv/bin/python -c "
    before, curl, request = rest.partition("curl ")
    lines = commands(before.strip())
    assert all(words[0] == ".venv/bin/python" for words in lines)
    return program, lines, curl + request


def test_the_commands_of_the_papers_results_are_understood() -> None:
    reproduce, part, faces, listing, bench = commands(REPRODUCTION)
    complete = f"--old-file={sys.prefix}/.complete"
    measured = ["tests.load.training_speed", "tests.load.serving_speed"]
    for command, modules in ((reproduce, ["training reproduce"]), (bench, measured)):
        dry = [*MAKE, complete, "-n", *command[1:]]
        done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True)
        program = f"{sys.prefix}/bin/python -m "
        lines = [line for line in done.stdout.splitlines() if line.startswith(program)]
        assert lines == [program + module for module in modules]
    for words in (part, faces, listing):
        assert words[:3] == [".venv/bin/python", "-m", "training"]
        assert parser().parse_args(words[3:])
    done = subprocess.run([sys.executable, *listing[1:]], cwd=ROOT, check=True, capture_output=True, text=True)
    assert all(name in done.stdout for name in EXPERIMENTS)


@pytest.mark.slow
@pytest.mark.data
def test_a_fit_becomes_a_served_version(tmp_path: Path) -> None:
    """Fits Thyroid as the README says, beside the shipped versions, evaluates it and serves it."""
    models = tmp_path / "models"
    shutil.copytree(MODELS / "thyroid", models / "thyroid")
    _, fit, evaluate = commands(TRAINING)
    subprocess.run([sys.executable, *fit[1:], "--out", str(models)], cwd=ROOT, check=True)
    subprocess.run([sys.executable, *evaluate[1:-1], str(models / "thyroid" / "3")], cwd=ROOT, check=True)
    with serving(tmp_path / "log", models=models) as server, server.client() as client:
        rows = json.loads((models / "thyroid" / "3" / "examples.json").read_text())
        answer: dict[str, Any] = client.post("/score", json={"dataset": "thyroid", "vectors": rows["x"]}).json()
    assert answer["version"] == 3
    assert answer["scores"] == pytest.approx(rows["score"], rel=1e-5, abs=1e-5)
