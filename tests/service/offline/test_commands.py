"""The command: what it takes, what it says, and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.__main__ import main
from service.offline import commands
from service.offline.progress import Progress
from service.settings import Settings
from service.signatures import generate_key, sign_file
from tests.server import MODELS, ROOT, SECONDS, environment
from tests.service.offline.conftest import Score
from tests.service.offline.tables import thyroid, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(thyroid(), tmp_path / "table.parquet")


def test_the_process_scores_and_says_what_it_did(source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "score", source, "--dataset", "thyroid", "--out", tmp_path / "out"],
        cwd=ROOT,
        env=environment(models=MODELS),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    summary = json.loads(done.stdout)
    assert done.returncode == 0
    assert (summary["dataset"], summary["version"], summary["rows"], summary["engine"]) == ("thyroid", 2, 100, "local")
    assert done.stderr.startswith("100 rows, ")
    assert done.stderr.endswith(f"/s, 1 of 1 files, {tmp_path}/out/table.parquet\n")
    assert pq.read_metadata(tmp_path / "out" / "table.parquet").num_rows == 100


def test_serving_needs_nothing_of_it() -> None:
    """The bars for start and memory are those of the service alone."""
    program = (
        "import sys, service.__main__; print([name for name in sys.modules if name.startswith(('pyarrow', 'ray'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_quiet_says_nothing(score: Score, source: Path) -> None:
    done = score(source, "--quiet")
    assert (done.status, done.errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "dataset", "error"),
    [
        (
            [],
            "nonsense",
            'No model for dataset "nonsense". Known datasets: arrhythmia, digits, kddcup-rev, kddcup99, thyroid.',
        ),
        (["--version", 9], "thyroid", 'No version 9 of dataset "thyroid". Known versions: 1, 2.'),
    ],
)
def test_an_unknown_model_is_named(
    arguments: list[object], dataset: str, error: str, score: Score, source: Path
) -> None:
    assert score(source, *arguments, dataset=dataset).error == error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--version", "0"], "argument --version: invalid at_least_one value: '0'"),
        (["--batch-rows", "x"], "argument --batch-rows: invalid at_least_one value: 'x'"),
        (["--gpus-per-actor", "-1"], "argument --gpus-per-actor: invalid not_negative value: '-1'"),
        (["--gpus-per-actor", "inf"], "argument --gpus-per-actor: invalid not_negative value: 'inf'"),
        (["--bad-rows", "drop"], "argument --bad-rows: invalid choice: 'drop'"),
        (["--engine", "spark"], "argument --engine: invalid choice: 'spark'"),
    ],
)
def test_a_wrong_command_is_refused(arguments: list[str], error: str, score: Score, source: Path) -> None:
    done = score(source, *arguments)
    assert done.status == 2
    assert error in done.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --out"),
        (["--out", "y"], "one of the arguments --dataset --model is required"),
        (["--out", "y", "--dataset", "thyroid", "--model", "models"], "--model: not allowed with argument --dataset"),
    ],
)
def test_the_model_and_the_place_for_the_scores_must_be_said(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "score", "x.parquet", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert message in capsys.readouterr().err


def test_a_wrong_setting_is_named(score: Score, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADOGAGA_THREADS", "0")
    assert score(source).error.startswith("RADOGAGA_THREADS is '0': ")


def test_a_demanded_gpu_that_is_not_there_is_an_error(
    score: Score, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADOGAGA_PROVIDER", "cuda")
    assert score(source).error.startswith("RADOGAGA_PROVIDER is 'cuda', but the installed onnxruntime has only ")


def test_a_missing_folder_of_models_is_named(score: Score, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADOGAGA_MODELS", "/nowhere")
    assert score(source).error == "/nowhere: can't be read (No such file or directory) (RADOGAGA_MODELS)"


def test_a_broken_model_is_named(score: Score, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADOGAGA_MODELS", str(folder.parents[1]))
    (folder / "scorer.onnx").write_bytes(b"")
    assert score(source).error.startswith(f"{folder}/scorer.onnx: sha256 is e3b0c442")


def test_demanded_signatures_are_demanded_here_too(
    score: Score, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = source.parent / "key"
    generate_key(key, "ours")
    monkeypatch.setenv("RADOGAGA_MODELS", str(folder.parents[1]))
    monkeypatch.setenv("RADOGAGA_SIGNERS", f"{key}.pub")
    assert score(source).error.startswith(f"{folder}/manifest.json.sig: can't be read (No such file or directory)")
    sign_file(folder / "manifest.json", key)
    assert score(source).summary["rows"] == 100


def test_ctrl_c_is_an_exit_status_of_its_own(score: Score, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "add", interrupt)
    done = score(source)
    assert (done.status, done.output) == (130, "")
    assert done.errors == "interrupted; --resume goes on with what is missing\n"
    assert list((source.parent / "out").iterdir()) == []


def test_without_ray_its_extra_is_named(score: Score, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    error = score(source, "--engine", "ray").error
    assert error.startswith("Ray is not installed; the extra [ray] has it: pip install 'radogaga[cpu,ray]'")


def test_progress_is_said_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    said = Progress(2, clock=lambda: now)
    said.add(1000)
    now = 104.0
    said.add(1000)
    now = 110.0
    said.add(3000)
    said.finish("x.parquet")
    assert capsys.readouterr().err == "5,000 rows, 500/s, 0 of 2 files\n5,000 rows, 500/s, 1 of 2 files, x.parquet\n"


@pytest.mark.parametrize(
    ("given", "provider", "gpus"),
    [(None, "auto", 0.0), (None, "cuda", 1.0), (None, "tensorrt", 1.0), (0.25, "cuda", 0.25)],
)
def test_a_demanded_gpu_is_one_for_each_actor(given: float | None, provider: str, gpus: float) -> None:
    assert commands.gpus_of(given, Settings.model_validate({"provider": provider})) == gpus


@pytest.mark.parametrize(
    ("text", "keep"), [("all", "all"), ("rest", "rest"), ("none", "none"), ("a, b,", ("a", "b")), ("a", ("a",))]
)
def test_the_columns_to_keep_are_words_or_names(text: str, keep: object) -> None:
    assert commands.keep_of(text) == keep
