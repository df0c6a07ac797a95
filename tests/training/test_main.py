"""The command line."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.manifests import write_manifest
from training import export as exporter
from training.__main__ import DATASET_OPTIONS, main, parser
from training.experiments import EXPERIMENTS
from training.experiments.ablation import CANDIDATES, OTHERS, RIVALS
from training.experiments.base import Experiment, Request
from training.export import ExportError
from training.fitting import Run
from training.jobs import FittedModel
from training.methods.ensemble import Ensemble
from training.own_command import OPTIONS
from training.settings import ROBUST

CHECKPOINT = ".fit-RaDOGAGA-log-robust-table2-seed0.pt"

FIT = ["fit", "thyroid", "--epochs", "6", "--batch-size", "100"]


@pytest.mark.usefixtures("small_thyroid")
def test_fit_writes_the_next_version_and_evaluate_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--out", str(tmp_path), "--seed", "3", "--h", "identity"]) == 0
    manifest = json.loads((tmp_path / "thyroid" / "1" / "manifest.json").read_text())
    assert manifest["provenance"]["seed"] == 3
    assert (manifest["provenance"]["settings"]["epochs"], manifest["provenance"]["settings"]["h"]) == (6, "identity")
    said = capsys.readouterr().out
    assert "epoch 1/6  rate" in said
    assert "distortion" in said
    assert "perturbation" in said
    assert "ETA" in said
    assert f"wrote {tmp_path}/thyroid/1" in said.replace("\n", "")
    assert main(["evaluate", str(tmp_path / "thyroid" / "1")]) == 0
    shown = capsys.readouterr().out
    for word in ("precision", "recall", "f1", "auroc", "average precision", "flagged", "shipped", "percentile"):
        assert word in shown
    assert f"{manifest['provenance']['metrics']['shipped_threshold']['auroc']:.4g}" in shown
    assert not list((tmp_path / "thyroid").glob(".*"))


def test_manifests_are_sealed(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(exported, tmp_path / "1")
    manifest = {**json.loads((exported / "manifest.json").read_text()), "format_version": 1}
    del manifest["sha256"]
    (tmp_path / "1" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    assert main(["seal", str(tmp_path / "1"), str(tmp_path / "1")]) == 0
    path = tmp_path / "1" / "manifest.json"
    assert capsys.readouterr().out.replace("\n", "") == f"wrote {path}nothing to do: {path}"
    assert path.read_bytes() == (exported / "manifest.json").read_bytes()


@pytest.mark.usefixtures("small_thyroid")
def test_scores_of_several_folders_are_described(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        shutil.copytree(exported, folder)
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    del manifest["score_bins"]
    write_manifest(folders[0] / "manifest.json", manifest, indent=1)
    assert main(["describe-scores", *map(str, folders)]) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert said == f"wrote {folders[0]}/manifest.jsonnothing to do: {folders[1]}/manifest.json"
    assert (folders[0] / "manifest.json").read_bytes() == (exported / "manifest.json").read_bytes()


def test_list_shows_datasets_methods_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "RaDOGAGA",
        "faithful",
        "robust",
        "thyroid",
        "arrhythmia",
        "kddcup99",
        "kddcup-rev",
        "table2",
        "table3",
    ):
        assert word in shown
    images = shown[shown.index("images") :]
    assert "digits" in images
    assert "1000" in images


def test_an_error_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} is no model folder")
    assert error.count("\n") == 1


def test_data_that_can_not_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RADOGAGA_DATA", str(tmp_path))
    (tmp_path / "thyroid").mkdir()
    (tmp_path / "thyroid" / "thyroid.mat").write_bytes(b"cut")
    assert main([*FIT, "--out", str(tmp_path / "models")]) == 1
    assert "thyroid.mat is cut short: it has 3 of 39704 bytes. Delete it" in capsys.readouterr().err
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.usefixtures("small_thyroid")
def test_resume_needs_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--out", str(tmp_path), "--resume"]) == 1
    assert "there is no checkpoint to resume at" in capsys.readouterr().err


@pytest.mark.usefixtures("small_thyroid")
@pytest.mark.parametrize("failure", [ExportError("disk full"), KeyboardInterrupt()])
def test_a_failed_export_does_not_lose_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(exporter, "write", fail)
        assert main([*FIT, "--out", str(tmp_path)]) == (1 if isinstance(failure, ExportError) else 130)
    checkpoint = tmp_path / "thyroid" / CHECKPOINT
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    error = capsys.readouterr().err
    assert f"the fit is kept in {checkpoint}; the same command with --resume exports it" in error
    assert error.splitlines()[-1] in ("error: disk full", "interrupted")
    monkeypatch.setattr(Run, "advance", None)  # no step is left to take
    assert main([*FIT, "--out", str(tmp_path), "--resume"]) == 0
    assert [path.name for path in checkpoint.parent.iterdir()] == ["1"]


@pytest.mark.usefixtures("small_thyroid")
def test_a_version_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object) -> None:
        (tmp_path / "thyroid" / "1").mkdir()
        (tmp_path / "thyroid" / "1" / "manifest.json").write_text("another's")

    monkeypatch.setattr(exporter, "write", write)
    assert main([*FIT, "--out", str(tmp_path)]) == 1
    assert "thyroid/1 can't be written (Directory not empty)" in capsys.readouterr().err
    assert (tmp_path / "thyroid" / "1" / "manifest.json").read_text() == "another's"
    assert not list((tmp_path / "thyroid").glob(".export-*"))


@pytest.mark.usefixtures("small_thyroid")
def test_a_place_that_can_not_be_written_is_noticed_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Run, "advance", None)
    (tmp_path / "file").write_text("")
    assert main([*FIT, "--out", str(tmp_path / "file")]) == 1
    assert (
        "file/thyroid can't be written (Not a directory); choose another folder with --out" in capsys.readouterr().err
    )
    monkeypatch.setattr(exporter, "SCHEMA", tmp_path / "missing.json")
    assert main([*FIT, "--out", str(tmp_path)]) == 1
    assert "missing.json is missing: run from a checkout of the whole project" in capsys.readouterr().err


@pytest.mark.usefixtures("small_thyroid")
def test_batches_too_small_for_a_mixture_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "thyroid", "--batch-size", "19", "--out", str(tmp_path)]) == 1
    assert "error: batch_size is 19, expected at least 20" in capsys.readouterr().err


@pytest.mark.usefixtures("small_thyroid")
def test_a_checkpoint_is_not_silently_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "thyroid" / CHECKPOINT
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    assert main([*FIT, "--out", str(tmp_path)]) == 1
    assert "go on with --resume or drop it with --restart" in capsys.readouterr().err
    assert checkpoint.exists()
    assert main([*FIT, "--out", str(tmp_path), "--restart"]) == 0
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "thyroid", "--epochs", "0"], "argument --epochs: is 0, expected an integer of at least 1"),
        (["fit", "thyroid", "--epochs", "many"], "argument --epochs: invalid positive value: 'many'"),
        (["fit", "thyroid", "--seed", "-1"], "argument --seed: is -1, expected an integer from 0 to 1000000000"),
        (["fit", "thyroid", "--seed", str(10**20)], "expected an integer from 0 to 1000000000"),
        (["fit", "thyroid", "--learning-rate", "nan"], "is nan, expected a finite number above 0"),
        (["fit", "thyroid", "--h", "sqrt"], "invalid choice: 'sqrt'"),
        (["reproduce", "table1", "--seeds", "4-0"], "is 4-0, expected the smaller seed first"),
        ([], "the following arguments are required: command"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tyroid"], "table is 'tyroid', expected a file that is there, or one of thyroid, arrhythmia, kddcup99"),
        (["thyroid", "--name", "x"], "--name is x, but thyroid is a dataset with settings by name: leave it away"),
        (["thyroid", "--contamination", "0.1"], "--contamination is 0.1, but thyroid is a dataset"),
        (["{table}", "--epochs", "5"], "--epochs is 5, but a table's settings are found out: leave it away"),
        (["{table}", "--resume"], "--resume is True, but a table's settings are found out: leave it away"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n" + "1,2\n3,4\n" * 50)
    assert main(["fit", *(one.format(table=table) for one in arguments), "--out", str(tmp_path / "models")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_every_option_is_of_datasets_or_of_tables_or_of_both() -> None:
    options = vars(parser().parse_args(["fit", "thyroid"])).keys()
    assert options == {"dataset", "command", "seed", "out", *OPTIONS, *DATASET_OPTIONS}


PROGRAM = """
import sys

from tests.manifests import write_manifest
from tests.conftest import small_table
from training.__main__ import main
from training.datasets import DATASETS
DATASETS["thyroid"] = small_table
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_leaves_a_checkpoint_and_resume_gives_the_same_model(tmp_path: Path) -> None:
    """The same fit twice, one of them interrupted, ends in the same weights and so in the same examples."""

    def command(out: str, *more: str) -> list[str]:
        fit = ["fit", "thyroid", "--epochs", "60", "--batch-size", "100", "--out", str(tmp_path / out), *more]
        return [sys.executable, "-c", PROGRAM, *fit]

    root = Path(__file__).parents[2]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command("a"), cwd=root, stdout=stream, stderr=subprocess.STDOUT, env=dict(os.environ)
        )
    deadline = time.monotonic() + 60
    while "epoch" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "interrupted: stopped after step" in log.read_text()
    assert "go on with the same command and --resume" in log.read_text()
    assert [path.name for path in (tmp_path / "a" / "thyroid").iterdir()] == [
        ".fit-RaDOGAGA-log-robust-table2-seed0.pt"
    ]
    for arguments in (command("a", "--resume"), command("b")):
        subprocess.run(arguments, cwd=root, check=True, capture_output=True, timeout=120)
    examples = [(tmp_path / out / "thyroid" / "1" / "examples.json").read_bytes() for out in ("a", "b")]
    assert examples[0] == examples[1]


PAGE = "".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in EXPERIMENTS)


@pytest.mark.usefixtures("small_thyroid")
def test_reproduce_writes_lines_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ROBUST["thyroid"], "epochs", 3)
    monkeypatch.setitem(CANDIDATES, "thyroid", [{}, {"averaging": 0.0}])
    monkeypatch.setitem(OTHERS, "thyroid", {})
    monkeypatch.setitem(RIVALS, "thyroid", ())
    (tmp_path / "results.md").write_text(PAGE)
    common = ["--datasets", "thyroid", "--workers", "1", "--docs", str(tmp_path)]
    assert main(["reproduce", "table1", "--recipes", "robust", "--seeds", "0-1", *common]) == 0
    assert main(["reproduce", "ablation", "--seeds", "0", *common]) == 0
    assert len((tmp_path / "results" / "table1.jsonl").read_text().splitlines()) == 6
    assert len((tmp_path / "results" / "ablation.jsonl").read_text().splitlines()) == 2
    written = (tmp_path / "results.md").read_text()
    for line in (
        "| DAGMM | `robust` | 0 to 1 |",
        "| RaDOGAGA(log d) | `robust` | 0 to 1 |",
        "| thyroid | RaDOGAGA(log d) | averaging 0.0 | 1 |",
    ):
        assert line in written
    (tmp_path / "results.md").write_text(PAGE)
    assert main(["reproduce", "table1", "--render", "--seeds", "0-9", *common]) == 0  # nothing more is run
    assert "| DAGMM | `robust` | 0 to 1 |" in (tmp_path / "results.md").read_text()
    assert len((tmp_path / "results" / "table1.jsonl").read_text().splitlines()) == 6
    capsys.readouterr()
    assert main(["reproduce", "--list", "--recipes", "robust", "--seeds", "0-3", *common]) == 0
    assert "6/12" in capsys.readouterr().out
    with (tmp_path / "results" / "table1.jsonl").open("a") as stream:
        stream.write('{"experiment": "tab')
    assert main(["reproduce", "table1", "--seeds", "0", *common]) == 1
    assert "table1.jsonl, line 7 is not JSON" in capsys.readouterr().err
    (tmp_path / "results.md").unlink()
    assert main(["reproduce", "table1", "--seeds", "0", *common]) == 1
    assert "has no lines" in capsys.readouterr().err


def test_a_selection_without_any_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.md").write_text(PAGE)
    command = ["reproduce", "table4", "--recipes", "ensemble", "--datasets", "thyroid", "--docs", str(tmp_path)]
    assert main(command) == 1
    assert "error: table4 has no run with recipes ensemble on thyroid" in capsys.readouterr().err


class Noted(Experiment):
    """Says that it was run, and how many minutes it had, to a tenth."""

    name = "noted"
    summary = ""

    def __init__(self, done: list[tuple[str, float]], only_by_name: bool) -> None:
        self.done, self.only_by_name = done, only_by_name

    def state(self, _: Request) -> str:
        return ""

    def reproduce(self, request: Request, _: Console) -> None:
        self.done.append(
            ("by name" if self.only_by_name else "always", round((request.deadline - time.monotonic()) / 60, 1))
        )

    def render(self, _: Path) -> str:
        return "by name" if self.only_by_name else "always"


def test_what_takes_hours_is_run_only_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, float]] = []
    known = {"toy": Noted(done, only_by_name=False), "figure4": Noted(done, only_by_name=True)}
    monkeypatch.setattr("training.__main__.EXPERIMENTS", known)
    (tmp_path / "results.md").write_text(PAGE)
    assert main(["reproduce", "--docs", str(tmp_path)]) == 0
    assert done == [("always", math.inf)]
    assert main(["reproduce", "figure4", "--minutes", "2.5", "--docs", str(tmp_path)]) == 0
    assert done[1:] == [("by name", 2.5)]
    (tmp_path / "results.md").write_text(PAGE)
    assert main(["reproduce", "--render", "--docs", str(tmp_path)]) == 0
    written = (tmp_path / "results.md").read_text()
    assert "always" in written
    assert "by name" in written
    assert len(done) == 2


def test_an_experiment_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table2"]) == 1
    assert "experiment is 'table2', expected one of table1, table4, protocol_b" in capsys.readouterr().err


@pytest.mark.usefixtures("small_thyroid")
def test_fit_takes_a_method_and_a_recipe(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[FittedModel] = []

    def noting_export(model: FittedModel, _: Path) -> Path:
        written.append(model)
        return exported

    monkeypatch.setattr("training.__main__.export", noting_export)
    assert main([*FIT, "--method", "DAGMM", "--out", str(tmp_path)]) == 0
    assert "penalty" in capsys.readouterr().out
    assert main([*FIT, "--recipe", "ensemble", "--out", str(tmp_path)]) == 0
    dagmm, ensemble = written
    assert (dagmm.job.method, dagmm.job.h, dagmm.job.settings.lambda1) == ("DAGMM", "identity", 0.1)
    assert isinstance(ensemble.method, Ensemble)
    assert len(ensemble.method.medians) == 10
    assert main([*FIT, "--method", "DAGMM", "--h", "log", "--out", str(tmp_path)]) == 1
    assert "h is log, but DAGMM has no h" in capsys.readouterr().err
