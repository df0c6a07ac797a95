"""A real Ray cluster on this machine scores every row once, whoever dies in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.detector import Scores
from tests.load.processes import family
from tests.server import MODELS, ROOT, environment
from tests.service.offline.tables import Table, changed, expected, thyroid, write

pytestmark = pytest.mark.ray

Cluster = Any
"""A `ray.cluster_utils.Cluster`, which has types only where Ray is installed."""

PATIENCE = 120.0
"""Seconds that a run may take, or something in it."""

ROWS, BLOCK = 400_000, 10_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes with a core each."""
    from ray.cluster_utils import Cluster

    quiet = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=quiet)
    try:
        cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def table() -> Table:
    return thyroid(ROWS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, table: Table) -> Path:
    return write(table, tmp_path_factory.mktemp("in") / "table.parquet", piece=BLOCK)


@pytest.fixture(scope="module")
def truth(table: Table) -> Scores:
    return expected(table)


class Run:
    """The command as a process."""

    def __init__(self, out: Path, *arguments: object, **settings: object) -> None:
        words = [*map(str, arguments), "--dataset", "thyroid", "--out", str(out), "--engine", "ray"]
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "score", *words],
            cwd=ROOT,
            env=environment(**{"models": MODELS, "provider": "cpu", **settings}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def blocks(self) -> int:
        """Counts the blocks that are there by now."""
        return len(list(self.out.glob("*.parquet/*.parquet")))

    def wait_for_blocks(self, number: int) -> None:
        """Waits until so many blocks are there."""
        deadline = time.monotonic() + PATIENCE
        while self.blocks() < number:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"{self.blocks()} blocks in time"
            time.sleep(0.01)

    def summary(self) -> dict[str, Any]:
        """Returns what the run says at its end."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        found: dict[str, Any] = json.loads(output)
        return found

    def error(self) -> str:
        """Returns the error at its end."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, output) == (1, ""), errors
        return next(line for line in errors.splitlines() if line.startswith("error: ")).removeprefix("error: ")


@contextmanager
def running(cluster: Cluster, out: Path, *arguments: object, **settings: object) -> Iterator[Run]:
    run = Run(out, *arguments, "--ray-address", cluster.address, **settings)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.communicate()


def actors() -> list[int]:
    """Returns the processes that are detectors, of the clusters this process has started."""
    found = []
    for pid in family(os.getpid()):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith(b"ray::") and b"Scorer" in title:
            found.append(pid)
    return found


def check_all_rows(folder: Path, table: Table, truth: Scores) -> None:
    """Checks that each row is there once, with the score it has in one process."""
    found = pq.read_table(folder).sort_by("row")
    assert found["row"].to_pylist() == list(range(len(table)))
    assert found["patient"].to_pylist() == table["patient"].to_pylist()
    np.testing.assert_array_equal(found["score"].to_numpy(), truth.scores)
    np.testing.assert_array_equal(found["anomaly"].to_numpy(), truth.anomalies)
    assert not [path for path in folder.iterdir() if path.suffix != ".parquet"]


def test_many_blocks_have_the_scores_of_one_process(
    cluster: Cluster, source: Path, table: Table, truth: Scores, tmp_path: Path
) -> None:
    with running(cluster, tmp_path / "out", source, "--block-rows", BLOCK) as run:
        summary = run.summary()
    check_all_rows(tmp_path / "out" / "table.parquet", table, truth)
    assert (summary["rows"], summary["written"], summary["engine"]) == (ROWS, ROWS // BLOCK, "ray")
    assert summary["anomalies"] == np.count_nonzero(truth.anomalies)


def test_the_local_engine_writes_the_same(cluster: Cluster, tmp_path: Path) -> None:
    small = thyroid(5000, seed=1)
    for suffix in ("parquet", "csv", "arrow", "arrows"):
        write(small, tmp_path / "in" / suffix / f"table.{suffix}", piece=1000)
    with running(cluster, tmp_path / "ray", tmp_path / "in", "--block-rows", 1000, "--actors", 2) as run:
        assert run.summary()["written"] == 5 + 1 + 5 + 1
    words = [str(tmp_path / "in"), "--dataset", "thyroid", "--out", str(tmp_path / "local")]
    local = [sys.executable, "-m", "service", "score", *words]
    subprocess.run(local, cwd=ROOT, env=environment(models=MODELS), check=True, capture_output=True)
    for suffix in ("parquet", "csv", "arrow", "arrows"):
        name = f"{suffix}/table.parquet"
        found = pq.read_table(tmp_path / "ray" / name).sort_by("row").drop_columns(["file", "row"])
        assert found.equals(pq.read_table(tmp_path / "local" / name))


def kill_an_actor(_: Run, __: Cluster) -> None:
    found = actors()
    assert found, "no actor is running"
    os.kill(found[0], signal.SIGKILL)


def kill_every_actor(_: Run, __: Cluster) -> None:
    found = actors()
    assert len(found) == 2
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def lose_a_node(_: Run, cluster: Cluster) -> None:
    """A machine goes, with its actor, and another one comes."""
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1)


@pytest.mark.parametrize("harm", [kill_an_actor, kill_every_actor, lose_a_node], ids=lambda harm: harm.__name__)
def test_what_dies_in_the_middle_loses_and_doubles_no_row(
    harm: Callable[[Run, Cluster], None], cluster: Cluster, source: Path, table: Table, truth: Scores, tmp_path: Path
) -> None:
    with running(cluster, tmp_path / "out", source, "--block-rows", BLOCK) as run:
        run.wait_for_blocks(4)
        before = set(actors())
        harm(run, cluster)
        assert run.blocks() < ROWS // BLOCK, "it was over before any harm was done"
        summary = run.summary()
    assert before
    check_all_rows(tmp_path / "out" / "table.parquet", table, truth)
    assert (summary["rows"], summary["written"]) == (ROWS, ROWS // BLOCK)
    assert summary["anomalies"] == np.count_nonzero(truth.anomalies)


def test_a_driver_that_was_killed_is_resumed(
    cluster: Cluster, source: Path, table: Table, truth: Scores, tmp_path: Path
) -> None:
    with running(cluster, tmp_path / "out", source, "--block-rows", BLOCK) as run:
        run.wait_for_blocks(4)
        run.process.kill()
        run.process.wait()
    deadline = time.monotonic() + PATIENCE
    while actors():  # they end with the driver
        assert time.monotonic() < deadline
        time.sleep(0.05)
    written = run.blocks()
    assert 4 <= written < ROWS // BLOCK
    with running(cluster, tmp_path / "out", source, "--block-rows", BLOCK, "--resume") as run:
        summary = run.summary()
    assert (summary["skipped"], summary["written"], summary["rows"]) == (written, ROWS // BLOCK - written, ROWS)
    check_all_rows(tmp_path / "out" / "table.parquet", table, truth)


def test_a_bad_row_ends_the_run_and_is_named(cluster: Cluster, tmp_path: Path) -> None:
    source = write(changed(thyroid(5000), 3210, "TSH", None), tmp_path / "table.parquet", piece=1000)
    with running(cluster, tmp_path / "out", source, "--block-rows", 1000) as run:
        error = run.error()
    assert error == f'{source}: row 3210, column "TSH" is null, expected a finite number that fits a float32'
    with running(cluster, tmp_path / "null", source, "--block-rows", 1000, "--bad-rows", "null") as run:
        assert run.summary()["bad_rows"] == 1
    found = pq.read_table(tmp_path / "null" / "table.parquet").sort_by("row")
    assert found["score"].is_null().to_pylist() == [row == 3210 for row in range(5000)]


def test_more_actors_than_there_is_room_for_are_refused(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    with running(cluster, tmp_path / "out", source, "--block-rows", BLOCK, "--actors", 3) as run:
        error = run.error()
    assert error == "3 actors of 1 CPU and 0 GPUs each don't fit the Ray cluster, which has 2 CPUs and 0 GPUs"


def test_a_demanded_gpu_needs_a_cluster_that_has_one(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    with running(cluster, tmp_path / "out", source, provider="cuda") as run:
        error = run.error()
    assert error == "1 actors of 1 CPU and 1 GPUs each don't fit the Ray cluster, which has 2 CPUs and 0 GPUs"


def test_a_model_that_an_actor_can_t_load_is_named(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    """The GPU is asked of onnxruntime only, which has none."""
    with running(cluster, tmp_path / "out", source, "--gpus-per-actor", 0, provider="cuda") as run:
        assert run.error().startswith("RADOGAGA_PROVIDER is 'cuda', but the installed onnxruntime has only ")


def test_without_an_address_there_is_a_cluster_for_as_long_as_it_takes(tmp_path: Path) -> None:
    source = write(thyroid(1000), tmp_path / "table.parquet", piece=100)
    summary = Run(tmp_path / "out", source, "--block-rows", 100).summary()
    assert (summary["rows"], summary["written"]) == (1000, 10)
    check_all_rows(tmp_path / "out" / "table.parquet", thyroid(1000), expected(thyroid(1000)))


def test_an_address_without_a_cluster_is_named(source: Path, tmp_path: Path) -> None:
    error = Run(tmp_path / "out", source, "--ray-address", "127.0.0.1:1").error()
    assert error.startswith("there is no Ray cluster at 127.0.0.1:1: ")


def test_a_table_without_rows_has_a_block(cluster: Cluster, tmp_path: Path) -> None:
    source = write(thyroid(0), tmp_path / "table.parquet")
    with running(cluster, tmp_path / "out", source) as run:
        assert run.summary()["rows"] == 0
    assert pq.read_table(tmp_path / "out" / "table.parquet").schema.field("score").type == pa.float64()
