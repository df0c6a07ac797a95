"""A line says all that a run depended on, and a run whose line is there is not missing."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import small_job
from training.experiments import records
from training.experiments.records import append_record, missing, of_setting, read_records, record_of
from training.experiments.results import ResultsError

JOBS = [small_job(seed) for seed in range(3)]


def test_a_record_says_all_that_the_run_depended_on(tmp_path: Path) -> None:
    path = tmp_path / "results" / "table1.jsonl"
    append_record(path, record_of("table1", JOBS[1], JOBS[1].settings.to_json(), {"f1": 0.1}, 12.34))
    record = json.loads(path.read_text())
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
        "seconds": 12.3,
    }


def test_another_seed_setting_method_or_experiment_is_another_run() -> None:
    done = [record_of("table1", JOBS[0], JOBS[0].settings.to_json(), {}, 1.0)]
    assert missing("table1", JOBS, done) == JOBS[1:]
    assert missing("table4", JOBS, done) == JOBS
    for other in (small_job(0, epochs=31), small_job(0, method="DAGMM"), small_job(0, members=2)):
        assert missing("table1", [other], done) == [other]
        assert of_setting(done, other) == []


def test_a_setting_is_found_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    for job in (JOBS[2], JOBS[0], small_job(1, epochs=31)):
        append_record(path, record_of("table1", job, job.settings.to_json(), {}, 1.0))
    assert [record["seed"] for record in of_setting(read_records(path), JOBS[1])] == [0, 2]


def test_a_line_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table1.jsonl"
    assert read_records(path) == []
    append_record(path, record_of("table1", JOBS[0], JOBS[0].settings.to_json(), {}, 1.0))
    with path.open("a") as stream:
        stream.write('{"experiment": "tab')
    with pytest.raises(ResultsError, match=r"table1.jsonl, line 2 is not JSON \(Unterminated .*\); remove it and run"):
        read_records(path)


@pytest.mark.parametrize("line", ["5", '{"experiment": "table1"}', "[]"])
def test_a_line_that_is_no_run_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "table1.jsonl").write_text(line + "\n")
    with pytest.raises(ResultsError, match=re.escape(f"table1.jsonl, line 1 is no run: {line}; remove it")):
        read_records(tmp_path / "table1.jsonl")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "table1.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(ResultsError, match=r"table1.jsonl is not UTF-8 \(invalid start byte at byte 0\)"):
        read_records(tmp_path / "table1.jsonl")


def test_a_run_that_is_asked_for_twice_is_done_once() -> None:
    assert missing("table1", [JOBS[0], JOBS[1], JOBS[0]], []) == JOBS[:2]


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert records.current_commit() == ""
