"""A sweep writes a line per run, trains runs of one setting together, and never does a run twice."""

import io
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.conftest import small_job, small_rows
from training.experiments.records import Metrics, read_records
from training.experiments.sweep import SECONDS_PER_EPOCH, Runner, grouped, sweep
from training.fitting import FitInterrupted, Member, Observer, Progress, fit
from training.jobs import Job, build
from training.settings import MethodName

JOBS = [small_job(seed) for seed in range(3)]


class Noting:
    """Notes the runs it is given in place of fitting."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.seeds: list[list[int]] = []
        self.fails_at = fails_at

    def __call__(self, group: Sequence[Job], observer: Observer, _: Path) -> list[Metrics]:
        seeds = [job.seed for job in group]
        if self.fails_at in seeds:
            raise KeyboardInterrupt
        self.seeds.append(seeds)
        observer(Progress(1, 1, 1, 1, {}))
        return [{"f1": seed / 10} for seed in seeds]


def swept(runner: Runner, path: Path, jobs: list[Job] = JOBS, workers: int = 1, name: str = "table1") -> str:
    out = io.StringIO()
    sweep(name, jobs, runner, path, Console(file=out), workers)
    return out.getvalue()


def test_seeds_of_one_setting_are_one_group() -> None:
    other = [small_job(seed, epochs=31) for seed in range(2)]
    groups = grouped("table1", [JOBS[0], other[0], JOBS[1], other[1], JOBS[2]])
    assert [[job.seed for job in group.jobs] for group in groups] == [[0, 1, 2], [0, 1]]
    assert groups[0].label == "thyroid RaDOGAGA log robust batch_size 100 epochs 30 members 1 seed 0 to 2"
    assert groups[0].label != groups[1].label
    assert groups[0].weight == pytest.approx(3 * 30 * SECONDS_PER_EPOCH["thyroid"])
    assert len({group.checkpoint(Path("x")) for group in groups}) == 2


def test_a_group_holds_no_more_than_is_good() -> None:
    sizes = [len(group.jobs) for group in grouped("table1", [small_job(seed) for seed in range(45)])]
    assert sizes == [20, 20, 5]
    ensembles = grouped("table1", [small_job(seed, members=10) for seed in range(5)])
    assert [len(group.jobs) for group in ensembles] == [2, 2, 1]
    assert [len(group.jobs) for group in grouped("table1", [small_job(seed, members=50) for seed in range(2)])] == [
        1,
        1,
    ]


def test_an_interrupted_sweep_goes_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "results" / "table1.jsonl"
    jobs = [*JOBS, *(small_job(seed, epochs=31) for seed in (5, 6))]
    first, second, third = Noting(fails_at=5), Noting(), Noting()
    with pytest.raises(KeyboardInterrupt):
        swept(first, path, jobs)
    said = swept(second, path, jobs)
    swept(third, path, jobs)
    assert (first.seeds, second.seeds, third.seeds) == ([[0, 1, 2]], [[5, 6]], [])
    assert "epochs 31 members 1 seed 5 to 6: F1 0.5500, 0 s" in said
    assert [record["metrics"]["f1"] for record in read_records(path)] == [0.0, 0.1, 0.2, 0.5, 0.6]


def group_in_a_process(group: Sequence[Job], observer: Observer, _: Path) -> list[Metrics]:
    """Stands for a fit; workers find it by its name."""
    observer(Progress(1, 1, 1, 1, {}))
    return [{"pid": os.getpid(), "threads": torch.get_num_threads(), "seed": job.seed} for job in group]


def fit_for_long(group: Sequence[Job], observer: Observer, checkpoint: Path) -> list[Metrics]:
    """Fits until it is asked to stop, or goes on to a short end."""
    (job,) = group
    x = small_rows()
    member = Member(build(job.method, x, job.settings, job.seed), torch.arange(len(x)), job.seed)
    fit([member], x, job.settings, observer=observer, checkpoint=checkpoint, resume=checkpoint.exists())
    return [{"resumed": True}]


def failing(group: Sequence[Job], _: Observer, __: Path) -> list[Metrics]:
    raise ValueError(f"seed {group[0].seed}")


def test_several_processes_do_all_groups(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    jobs = [small_job(seed, method=method) for seed in range(2) for method in ("RaDOGAGA", "DAGMM")]
    swept(group_in_a_process, path, jobs, workers=2)
    records = read_records(path)
    assert len(records) == 4
    assert all(record["metrics"]["seed"] == record["seed"] for record in records)
    assert os.getpid() not in {record["metrics"]["pid"] for record in records}
    assert {record["metrics"]["threads"] for record in records} == {1}


def test_a_failure_in_a_process_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed 0"):
        swept(failing, tmp_path / "table1.jsonl", workers=2)
    assert read_records(tmp_path / "table1.jsonl") == []


def failing_once(group: Sequence[Job], _: Observer, __: Path) -> list[Metrics]:
    """Fails for DAGMM; anything else takes longer and ends well."""
    time.sleep(2.0 if group[0].method == "DAGMM" else 4.0)
    if group[0].method == "DAGMM":
        raise ValueError("DAGMM")
    return [{} for _ in group]


def test_what_was_done_when_another_group_failed_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    with pytest.raises(ValueError, match="DAGMM"):
        swept(failing_once, path, [small_job(0), small_job(0, method="DAGMM")], workers=2)
    assert [record["method"] for record in read_records(path)] == ["RaDOGAGA"]


def test_a_signal_leaves_a_checkpoint_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    methods: tuple[MethodName, ...] = ("RaDOGAGA", "DAGMM")
    jobs = [small_job(method=method, epochs=100_000) for method in methods]
    timer = threading.Timer(8.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises((KeyboardInterrupt, FitInterrupted)):
        swept(fit_for_long, path, jobs, workers=2)
    timer.cancel()
    checkpoints = list((tmp_path / ".unfinished").glob("*.pt"))
    assert len(checkpoints) == 2
    assert all(torch.load(checkpoint, weights_only=True)["step"] > 0 for checkpoint in checkpoints)
    assert read_records(path) == []


def test_the_checkpoint_of_a_group_is_used_and_then_removed(tmp_path: Path) -> None:
    path, (job,) = tmp_path / "table1.jsonl", [small_job(epochs=6)]
    (group,) = grouped("table1", [job])
    checkpoint = group.checkpoint(tmp_path / ".unfinished")

    def interrupting(jobs: Sequence[Job], observer: Observer, place: Path) -> list[Metrics]:
        def interrupt(progress: Progress) -> None:
            observer(progress)
            signal.raise_signal(signal.SIGINT)

        return fit_for_long(jobs, interrupt, place)

    with pytest.raises(FitInterrupted):
        swept(interrupting, path, [job])
    assert checkpoint.exists()
    clock = checkpoint.with_suffix(".seconds")
    assert float(clock.read_text()) > 0
    clock.write_text("1000")
    swept(fit_for_long, path, [job])
    assert not checkpoint.exists()
    assert not clock.exists()
    assert read_records(path)[0]["seconds"] > 1000
    assert [record["metrics"] for record in read_records(path)] == [{"resumed": True}]
