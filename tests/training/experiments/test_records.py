"""A sweep writes a line per run, and never does a run twice."""

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import small_job
from training.experiments import records
from training.experiments.records import read_records, sweep
from training.fitting import Observer
from training.jobs import Job

JOBS = [small_job(seed) for seed in range(3)]


class Measure:
    """Counts runs in place of fitting."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.seeds: list[int] = []
        self.fails_at = fails_at

    def __call__(self, job: Job, _: Observer) -> dict[str, Any]:
        if job.seed == self.fails_at:
            raise KeyboardInterrupt
        self.seeds.append(job.seed)
        return {"f1": job.seed / 10}


def run(measure: Measure, path: Path, name: str = "table1", jobs: list[Job] = JOBS) -> str:
    out = io.StringIO()
    sweep(name, jobs, measure, path, Console(file=out))
    return out.getvalue()


def test_an_interrupted_sweep_goes_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "results" / "table1.jsonl"
    first, second, third = Measure(fails_at=1), Measure(), Measure()
    with pytest.raises(KeyboardInterrupt):
        run(first, path)
    said = run(second, path)
    run(third, path)
    assert (first.seeds, second.seeds, third.seeds) == ([0], [1, 2], [])
    assert '[2/3] thyroid log robust seed 1: {"f1": 0.1}' in said
    assert [record["metrics"]["f1"] for record in read_records(path)] == [0.0, 0.1, 0.2]


def test_other_settings_or_another_experiment_are_another_run(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    run(Measure(), path)
    other, elsewhere = Measure(), Measure()
    run(other, path, jobs=[small_job(0, epochs=31)])
    run(elsewhere, path, name="selection")
    assert (other.seeds, elsewhere.seeds) == ([0], [0, 1, 2])


def test_a_record_says_all_that_the_run_depended_on(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    run(Measure(), path)
    record = json.loads(path.read_text().splitlines()[1])
    assert record.pop("seconds") >= 0
    assert isinstance(record.pop("commit"), str)
    assert record == {
        "experiment": "table1",
        "method": "RaDOGAGA",
        "h": "log",
        "recipe": "robust",
        "dataset": "thyroid",
        "seed": 1,
        "settings": JOBS[1].settings.to_json(),
        "metrics": {"f1": 0.1},
    }


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert records.current_commit() == ""
