"""What Ray would run, without Ray."""

import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.offline import ray
from service.offline.errors import OfflineError
from service.offline.progress import Progress
from service.offline.ray import Cluster, Scorer, task_of
from service.offline.scoring import Options, Task
from service.offline.tables import Part
from service.runtime import Runtime
from service.signatures import Signers, generate_key
from tests.server import MODELS
from tests.service.offline.tables import changed, detector, thyroid, write

FOLDER = MODELS / "thyroid" / "2"
SHA256 = detector().manifest.graphs.scorer.sha256


def blocks(*tasks: Task) -> dict[str, Any]:
    return {"task": np.array([json.dumps(asdict(task)) for task in tasks])}


@pytest.mark.parametrize("part", [Part("a.csv"), Part("a.parquet", (3, 7), 300, 400)])
def test_a_task_survives_the_way_to_an_actor(part: Part) -> None:
    task = Task(part, "out/a.parquet")
    assert task_of(json.loads(json.dumps(asdict(task)))) == task


def test_an_actor_writes_blocks_and_says_what_it_found(tmp_path: Path) -> None:
    source = write(thyroid(300), tmp_path / "table.parquet", piece=100)
    tasks = [Task(Part(str(source), (i, i + 1), 100 * i, 100), str(tmp_path / f"{i}.parquet")) for i in range(3)]
    found = Scorer(FOLDER, SHA256, Runtime("cpu"), Options(origin=True))(blocks(*tasks))
    assert found["out"].tolist() == [task.out for task in tasks]
    assert [json.loads(counts)["rows"] for counts in found["counts"]] == [100, 100, 100]
    assert found["error"].tolist() == ["", "", ""]
    assert pq.read_table(tasks[2].out)["row"].to_pylist() == list(range(200, 300))


def test_an_actor_hands_over_what_is_wrong_with_a_table(tmp_path: Path) -> None:
    source = write(changed(thyroid(), 3, "TSH", None), tmp_path / "table.parquet")
    found = Scorer(FOLDER, SHA256, Runtime("cpu"), Options())(blocks(Task(Part(str(source)), str(tmp_path / "out"))))
    (error,) = found["error"]
    assert error == f'{source}: row 3, column "TSH" is null, expected a finite number that fits a float32'
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sha256", "runtime", "error"),
    [
        ("0" * 64, Runtime("cpu"), f"{FOLDER}: the scorer's sha256 is {SHA256} on "),
        (SHA256, Runtime("cuda"), "RADOGAGA_PROVIDER is 'cuda', but the installed onnxruntime has only "),
    ],
)
def test_an_actor_hands_over_what_is_wrong_with_its_model(
    sha256: str, runtime: Runtime, error: str, tmp_path: Path
) -> None:
    source = write(thyroid(), tmp_path / "table.parquet")
    found = Scorer(FOLDER, sha256, runtime, Options())(blocks(Task(Part(str(source)), str(tmp_path / "out"))))
    assert found["error"][0].startswith(error)
    assert not (tmp_path / "out").exists()


def test_an_actor_demands_signatures(tmp_path: Path) -> None:
    generate_key(tmp_path / "key", "ours")
    signers = pickle.loads(pickle.dumps(Signers.load(tmp_path / "key.pub")))  # noqa: S301 - as Ray hands them over
    scorer = Scorer(FOLDER, SHA256, Runtime("cpu"), Options(), signers)
    found = scorer(blocks(Task(Part("x"), "y")))
    assert found["error"][0].startswith(f"{FOLDER}/manifest.json.sig: can't be read")


def test_an_actor_without_its_model_s_folder_says_so(tmp_path: Path) -> None:
    found = Scorer(tmp_path, SHA256, Runtime("cpu"), Options())(blocks(Task(Part("x"), "y")))
    assert found["error"][0].startswith(f"{tmp_path}/manifest.json: can't be read")


@pytest.mark.parametrize(
    ("resources", "cluster", "tasks", "actors"),
    [
        ({"CPU": 8.0}, Cluster(), 100, 8),
        ({"CPU": 8.0}, Cluster(), 3, 3),
        ({"CPU": 8.0}, Cluster(actors=5), 100, 5),
        ({"CPU": 8.0, "GPU": 2.0}, Cluster(gpus=1), 100, 2),
        ({"CPU": 8.0, "GPU": 2.0}, Cluster(gpus=0.5), 100, 4),
        ({"CPU": 3.0, "GPU": 2.0}, Cluster(gpus=0.5), 100, 3),
        ({"CPU": 8.0, "GPU": 4.0}, Cluster(gpus=2), 100, 2),
    ],
)
def test_there_are_as_many_actors_as_fit(
    resources: dict[str, float], cluster: Cluster, tasks: int, actors: int
) -> None:
    assert ray.number_of_actors(resources, cluster, tasks) == actors


@pytest.mark.parametrize(
    ("resources", "cluster", "error"),
    [
        (
            {"CPU": 2.0},
            Cluster(actors=3),
            "3 actors of 1 CPU and 0 GPUs each don't fit the Ray cluster, which has 2 CPUs",
        ),
        ({"CPU": 2.0}, Cluster(gpus=1), "1 actors of 1 CPU and 1 GPUs each don't fit"),
        ({}, Cluster(), "1 actors of 1 CPU and 0 GPUs each don't fit the Ray cluster, which has 0 CPUs and 0 GPUs"),
    ],
)
def test_what_does_not_fit_is_refused(resources: dict[str, float], cluster: Cluster, error: str) -> None:
    with pytest.raises(OfflineError, match=error):
        ray.number_of_actors(resources, cluster, 100)


def test_without_tasks_no_ray_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    counts = ray.score(FOLDER, SHA256, Runtime("cpu"), [], Options(), Cluster(), Progress(0))
    assert counts.rows == 0


def test_what_ray_itself_complains_of_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster goes away in the middle."""

    class RayError(Exception):
        pass

    class Dataset:
        def map_batches(self, *_: object, **__: object) -> "Dataset":
            return self

        def iter_rows(self) -> Any:  # noqa: ANN401
            raise RayError("the head node died\nat noon")

    fake = SimpleNamespace(
        init=lambda *_, **__: None,
        shutdown=lambda: None,
        cluster_resources=lambda: {"CPU": 2.0},
        exceptions=SimpleNamespace(RayError=RayError),
    )
    data = SimpleNamespace(
        DataContext=SimpleNamespace(get_current=SimpleNamespace),
        from_items=lambda *_, **__: Dataset(),
        ActorPoolStrategy=lambda **_: None,
    )
    monkeypatch.setattr(ray, "import_ray", lambda: (fake, data))
    task = Task(Part("x.parquet"), "out.parquet")
    with pytest.raises(OfflineError, match="Ray: the head node died"):
        ray.score(FOLDER, SHA256, Runtime("cpu"), [task], Options(), Cluster(), Progress(1))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_nobody_at_an_address_is_an_error_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        pytest.fail("it would try for minutes")

    monkeypatch.setattr(ray, "import_ray", lambda: (SimpleNamespace(init=init), None))
    with pytest.raises(OfflineError) as raised:
        ray.score(FOLDER, SHA256, Runtime("cpu"), [Task(Part("x"), "y")], Options(), Cluster(address), Progress(1))
    assert str(raised.value).startswith(f"there is no Ray cluster at {address}: ")
