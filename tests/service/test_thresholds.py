"""Thresholds that are changed after training."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.detector import Detector
from service.errors import StartError
from service.manifest import read_manifest
from service.runtime import Runtime
from service.seals import UNSEALED, sealed
from service.signatures import Signers, generate_key, sign_file
from service.thresholds import MOST_BYTES, THRESHOLDS, Thresholds, change_threshold, read_thresholds
from tests.server import ROOT, SERVICE, environment


def command(models: Path, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    variables = environment(models=models, **settings)
    return subprocess.run([*SERVICE, "threshold", *words], cwd=ROOT, env=variables, capture_output=True, text=True)


def written(folder: Path, **fields: object) -> Path:
    path = folder.parent / THRESHOLDS
    content = {"format_version": 1, "dataset": "thyroid", "changes": []} | fields | {"sha256": UNSEALED}
    path.write_text(sealed(json.dumps(content)))
    return path


def a_change(**fields: object) -> dict[str, object]:
    return {"version": 1, "threshold": 1.0, "why": "x", "by": "me", "at": "2026-01-01T00:00:00Z"} | fields


def test_every_change_is_kept_and_the_last_one_counts(folder: Path) -> None:
    parent = folder.parent
    assert read_thresholds(parent).of(1) is None
    change_threshold(parent, 1, 3.0, "fewer false alarms")
    change_threshold(parent, 2, 9.0, "another version")
    change_threshold(parent, 1, 4.0, "fewer still")
    found = read_thresholds(parent)
    assert [(change.version, change.threshold) for change in found.changes] == [(1, 3.0), (2, 9.0), (1, 4.0)]
    in_force = found.of(1)
    assert in_force is not None
    assert (in_force.threshold, in_force.why) == (4.0, "fewer still")
    assert [change.why for change in found.history(1)] == ["fewer false alarms", "fewer still"]
    change_threshold(parent, 1, None, "back")
    assert read_thresholds(parent).of(1) is None
    assert found.of(3) is None


def test_the_manifest_stays_as_it_is(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    change_threshold(folder.parent, 1, 3.0, "fewer false alarms")
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    assert (folder.parent / THRESHOLDS).stat().st_mode & 0o777 == 0o644


def test_changes_at_the_same_time_are_all_kept(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: change_threshold(folder.parent, 1, float(n), f"number {n}"), range(40)))
    changes = read_thresholds(folder.parent).changes
    assert sorted(change.threshold or 0.0 for change in changes) == [float(n) for n in range(40)]
    assert [change.at for change in changes] == sorted(change.at for change in changes)


def test_decisions_follow_the_changed_threshold(folder: Path) -> None:
    detector = Detector.load(folder, Runtime("cpu"))
    rows = np.asarray(json.loads((folder / "examples.json").read_text())["x"], np.float32)
    scores = detector.score(rows).scores
    change_threshold(folder.parent, 1, float(np.median(scores)), "half of them")
    changed = detector.changed(read_thresholds(folder.parent).of(1))
    assert np.array_equal(changed.score(rows).anomalies, scores >= np.median(scores))
    assert changed.decide_few(detector.run("scorer", rows[:4]))[1] == (scores[:4] >= np.median(scores)).tolist()
    assert np.array_equal(changed.changed(None).score(rows).anomalies, detector.score(rows).anomalies)


@pytest.mark.parametrize(
    ("threshold", "why", "problem"),
    [
        (float("nan"), "x", "threshold is nan: Input should be a finite number"),
        (float("inf"), "x", "threshold is inf: Input should be a finite number"),
        (1.0, "", "why is '': String should have at least 1 character"),
        (1.0, "two\nlines", r"why is 'two\\nlines': Value error, expected one line of text"),
        (1.0, " blank", "why is ' blank': Value error, expected one line of text"),
        (1.0, "x" * 501, "String should have at most 500 characters"),
    ],
)
def test_what_can_not_be_written(folder: Path, threshold: float, why: str, problem: str) -> None:
    with pytest.raises(StartError, match=problem):
        change_threshold(folder.parent, 1, threshold, why)
    assert not (folder.parent / THRESHOLDS).exists()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"format_version": 2}, "format_version is 2"),
        ({"dataset": "other"}, "dataset is 'other', expected 'thyroid' as the folder is called"),
        ({"more": 1}, "more is unknown"),
        ({"changes": [a_change(version=0)]}, "changes.0.version is 0"),
        ({"changes": [a_change(threshold="3")]}, "changes.0.threshold is '3'"),
        ({"changes": [a_change(at="2026-01-01T00:00:00")]}, "changes.0.at is '2026-01-01T00:00:00'"),
        ({"changes": [a_change(by="")]}, "changes.0.by is ''"),
    ],
)
def test_what_can_not_be_read(folder: Path, fields: dict[str, object], problem: str) -> None:
    path = written(folder, **fields)
    with pytest.raises(StartError, match=problem):
        read_thresholds(folder.parent)
    before = path.read_bytes()
    with pytest.raises(StartError, match=problem):
        change_threshold(folder.parent, 1, 1.0, "x")
    assert path.read_bytes() == before


def test_a_file_that_is_too_long(folder: Path) -> None:
    (folder.parent / THRESHOLDS).write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(StartError, match=f"thresholds.json: has {MOST_BYTES + 1} bytes, at most {MOST_BYTES} are read"):
        read_thresholds(folder.parent)


def test_a_file_that_is_none(folder: Path) -> None:
    (folder.parent / THRESHOLDS).mkdir()
    with pytest.raises(StartError, match="thresholds.json: is a folder, expected a regular file"):
        read_thresholds(folder.parent)


def test_a_file_that_leads_elsewhere(folder: Path) -> None:
    elsewhere = written(folder).rename(folder.parents[1] / "elsewhere.json")
    (folder.parent / THRESHOLDS).symlink_to(elsewhere)
    with pytest.raises(StartError, match="thresholds.json: is a symbolic link, expected a regular file"):
        read_thresholds(folder.parent)


def test_a_file_without_room_for_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(folder).read_bytes()
    monkeypatch.setattr("service.thresholds.MOST_BYTES", len(before) + 10)
    with pytest.raises(StartError, match=f"has no room for more changes, {len(before) + 10} bytes at most"):
        change_threshold(folder.parent, 1, 1.0, "x")
    assert (folder.parent / THRESHOLDS).read_bytes() == before


def test_no_byte_that_changes_by_accident_changes_a_threshold(folder: Path) -> None:
    change_threshold(folder.parent, 1, 3.25, "fewer false alarms")
    path = folder.parent / THRESHOLDS
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StartError, match="thresholds.json: "):
            read_thresholds(folder.parent)


def test_signed_changes(folder: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "key", "operator")
    (tmp_path / "signers").write_bytes((tmp_path / "key.pub").read_bytes())
    signers = Signers.load(tmp_path / "signers")
    models = folder.parents[1]
    assert command(models, "thyroid", "3", "--why", "x", "--key", str(tmp_path / "key")).returncode == 0
    in_force = read_thresholds(folder.parent, signers).of(1)
    assert in_force is not None
    assert in_force.threshold == 3.0
    assert command(models, "thyroid", "4", "--why", "x").returncode == 0
    with pytest.raises(StartError, match="thresholds.json.sig: is not valid for thresholds.json, which was altered"):
        read_thresholds(folder.parent, signers)


def test_nothing_is_changed_that_could_not_be_signed(models: Path, folder: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "key", "operator")
    sign_file(folder / "manifest.json", tmp_path / "key")
    signers = tmp_path / "key.pub"
    (tmp_path / "none").write_text("no key")
    (tmp_path / "none").chmod(0o600)
    for words, problem in (
        ([], "error: --key is missing: RADOGAGA_SIGNERS demands that the change is signed"),
        (["--key", str(tmp_path / "none")], f"error: {tmp_path}/none: "),
        (["--key", str(tmp_path / "nowhere")], f"error: {tmp_path}/nowhere: "),
    ):
        done = command(models, "thyroid", "3", "--why", "x", *words, signers=signers)
        assert done.returncode == 1
        assert done.stderr.startswith(problem)
        assert not (folder.parent / THRESHOLDS).exists()
    done = command(models, "thyroid", "3", "--why", "x", "--key", str(tmp_path / "key"), signers=signers)
    assert (done.returncode, done.stderr) == (0, "")
    assert command(models, "thyroid", signers=signers).stdout.startswith("thyroid version 1: threshold 3\n")


def test_a_folder_that_can_not_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match=r"nowhere: can't be opened \(No such file or directory\)"):
        change_threshold(folder.parents[1] / "nowhere", 1, 1.0, "x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.thresholds.os.fsync", full)
    change = Thresholds(dataset="thyroid")
    with pytest.raises(StartError, match=r"thresholds.json: can't be written \(No space left on device\)"):
        change_threshold(folder.parent, 1, 1.0, "x")
    assert change.changes == ()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["1"]


def test_the_command_changes_shows_and_resets(models: Path) -> None:
    done = command(models, "thyroid", "-8", "--why", "fewer misses")
    assert (done.returncode, done.stderr) == (0, "")
    manifest = read_manifest(models / "thyroid" / "1")
    assert done.stdout.startswith(f"thyroid version 1: threshold {manifest.threshold:g} -> -8; of the ")
    flagged = np.asarray(done.stdout.split()[-3::2], int)
    assert 0 < flagged[0] <= flagged[1] < manifest.calibration.rows
    shown = command(models, "thyroid")
    assert shown.stdout.splitlines()[0] == "thyroid version 1: threshold -8"
    assert shown.stdout.splitlines()[1] == f"  {manifest.threshold:g}  chosen in training"
    assert shown.stdout.splitlines()[2].endswith(": fewer misses")
    assert command(models, "thyroid", "--reset", "--why", "as it was").returncode == 0
    assert read_thresholds(models / "thyroid").of(1) is None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["other", "3.1", "--why", "x"], 'error: No model for dataset "other". Known datasets: thyroid.'),
        (["thyroid", "3.1", "--why", "x", "--version", "7"], "error: No version 7 of dataset"),
        (["thyroid", "3.1"], "error: --why is missing: say why the threshold is changed"),
        (["thyroid", "nan", "--why", "x"], "error: threshold is nan: "),
    ],
)
def test_wrong_commands(models: Path, words: list[str], problem: str) -> None:
    done = command(models, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(problem)
    assert not (models / "thyroid" / THRESHOLDS).exists()
