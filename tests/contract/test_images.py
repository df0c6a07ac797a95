"""From images to scores and back: fitted by the command line, exported, served, and decoded along a latent feature."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fastapi.testclient import TestClient

from service.app import create_app
from service.density import FactorizedDensity
from service.detector import Detector
from service.runtime import Runtime
from service.settings import Settings
from tests.contract.test_round_trip import assert_answers_are_pytorchs
from tests.server import IMAGES, MODELS, ROOT
from tests.service.conftest import wait_until_ready
from training import export as exporter
from training.__main__ import main
from training.evaluation import evaluate_folder
from training.experiments.digits import traversals
from training.export import ExportError, export, write_factorized
from training.jobs import FittedImages, ImageJob, build_images

CPU = Runtime("cpu")

EPOCHS = 2


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FittedImages, Path]:
    """Fits the digits for a moment; the model, and the folder that it was exported to."""
    out, models = tmp_path_factory.mktemp("models"), list[FittedImages]()

    def keep(model: FittedImages, out: Path) -> Path:
        models.append(model)
        return export(model, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.__main__.export", keep)
        assert main(["fit", "digits", "--epochs", str(EPOCHS), "--out", str(out)]) == 0
    return models[0], out / "digits" / "1"


@pytest.fixture(scope="module")
def model(fitted: tuple[FittedImages, Path]) -> FittedImages:
    return fitted[0]


@pytest.fixture(scope="module")
def folder(fitted: tuple[FittedImages, Path]) -> Path:
    return fitted[1]


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=folder.parents[1], provider="cpu"))) as client:
        yield wait_until_ready(client)


def test_the_manifest_says_what_the_images_are(manifest: dict[str, Any], model: FittedImages) -> None:
    assert manifest["format_version"] == 4
    assert manifest["image"] == {"channels": 1, "height": 8, "width": 8}
    assert [feature["name"] for feature in manifest["features"][:9]] == [
        *(f"pixel_0_{i}" for i in range(8)),
        "pixel_1_0",
    ]
    assert manifest["density"]["filters"] == [3, 3, 3]
    assert manifest["density"]["distortion_weight"] == pytest.approx(64 * model.job.settings.lambda1 / 16**2)
    assert manifest["provenance"]["settings"]["epochs"] == EPOCHS
    with torch.no_grad():
        z = model.method.encode(torch.from_numpy(model.dataset.x[model.split.normal]).double()).numpy()
    assert manifest["latents"]["means"] == pytest.approx(z.mean(axis=0))
    assert manifest["latents"]["deviations"] == pytest.approx(z.std(axis=0))


def test_scores_latents_and_reconstructions_are_pytorchs(model: FittedImages, folder: Path) -> None:
    assert_answers_are_pytorchs(Detector.load(folder, CPU), model.method, model.dataset.x)


def test_a_row_has_the_same_bits_alone_and_in_any_batch(model: FittedImages, folder: Path) -> None:
    detector, x = Detector.load(folder, CPU), model.dataset.x[:64]
    for function in (lambda rows: detector.score(rows).scores, detector.encode):
        together = function(x)
        assert np.array_equal(together, np.concatenate([function(row[None]) for row in x]))
        assert np.array_equal(together, np.concatenate([function(part) for part in np.split(x, [5, 40])]))
    z = detector.encode(x)
    assert np.array_equal(detector.decode(z), np.concatenate([detector.decode(row[None]) for row in z]))


def test_graphs_have_float64_inside_and_no_convolution(folder: Path) -> None:
    """onnxruntime's CPU has none but in float32."""
    for name in ("scorer", "encoder", "decoder"):
        graph = onnx.load(folder / f"{name}.onnx").graph
        assert not {"Conv", "ConvTranspose", "Softplus"} & {node.op_type for node in graph.node}
        kinds = {one.data_type for one in graph.initializer if len(one.dims) > 1}
        assert onnx.TensorProto.DOUBLE in kinds
        assert onnx.TensorProto.FLOAT not in kinds


def test_the_density_is_the_methods(model: FittedImages, folder: Path) -> None:
    manifest = Detector.load(folder, CPU).manifest
    assert manifest.density.kind == "factorized"
    density = FactorizedDensity.of((folder / "factorized.npz").read_bytes(), manifest.density, "factorized.npz")
    z = np.random.default_rng(0).normal(scale=[1, 30, 1e4, 1e9], size=(model.method.latent, 4)).T
    with torch.no_grad():
        expected = model.method.rate(torch.from_numpy(z)).numpy()
    assert density.rate(z) == pytest.approx(expected, rel=1e-9)


def test_it_can_be_measured_again(folder: Path, manifest: dict[str, Any]) -> None:
    evaluation = evaluate_folder(folder)
    assert evaluation.shipped_threshold == manifest["provenance"]["metrics"]["shipped_threshold"]
    assert (evaluation.rows, evaluation.anomalies) == (898, 90)


def test_images_are_scored_encoded_and_decoded_over_http(client: TestClient, model: FittedImages) -> None:
    images = model.dataset.x[:5].tolist()
    scored = client.post("/score", json={"dataset": "digits", "vectors": images}).json()
    assert len(scored["scores"]) == 5
    latents = client.post("/encode", json={"dataset": "digits", "vectors": images}).json()["latents"]
    decoded = client.post("/decode", json={"dataset": "digits", "latents": latents}).json()["vectors"]
    with torch.no_grad():
        rows = torch.from_numpy(model.dataset.x[:5]).double()
        assert np.array(latents) == pytest.approx(model.method.encode(rows).numpy(), rel=1e-5, abs=1e-5)
        expected = model.method.decode(torch.tensor(latents, dtype=torch.float64)).numpy()
    assert np.array(decoded) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_record_is_an_image_by_the_names_of_its_pixels(client: TestClient, model: FittedImages) -> None:
    row = model.dataset.x[7]
    record = {feature.name: float(value) for feature, value in zip(model.dataset.features, row, strict=True)}
    answers = [
        client.post("/score", json={"dataset": "digits", **rows}).json()["scores"]
        for rows in ({"vectors": [row.tolist()]}, {"records": [record]})
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("size", [1e3, 1e18, 1e19, 3e38])
def test_what_is_far_from_any_image_has_the_largest_score(client: TestClient, size: float) -> None:
    rows = [[size if i == j else 0.0 for i in range(64)] for j in (0, 27)]
    answer = client.post("/score", json={"dataset": "digits", "vectors": rows})
    assert answer.status_code == 200, answer.text
    assert answer.json()["anomalies"] == [True, True]
    assert max(answer.json()["scores"]) <= 3.4028234663852886e38
    assert min(answer.json()["scores"]) > min(size**2 / 300, 1e38)


def test_a_score_that_manifests_can_t_describe_is_not_exported(model: FittedImages, tmp_path: Path) -> None:
    job = ImageJob(dataset="digits", seed=0, overrides={"distance": "ssim", "window": 4})
    method = build_images(model.dataset, job.settings, 0)
    with pytest.raises(ExportError, match="distance is ssim and h is identity: expected squared_error, identity"):
        write_factorized(method, tmp_path / "factorized.npz")


def test_a_rate_alone_has_no_distortion(model: FittedImages, tmp_path: Path) -> None:
    job = ImageJob(dataset="digits", seed=0, overrides={"rate_only": True})
    described = write_factorized(build_images(model.dataset, job.settings, 0), tmp_path / "factorized.npz")
    assert described["distortion_weight"] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--h", "log"], "--h is log, but digits is a dataset with settings by name: leave it away"),
        (["--recipe", "faithful"], "--recipe is faithful, but digits is"),
        (["--label", "y"], "--label is y, but digits is"),
        (["--batch-size", "7"], "batch_size is 7, expected at least 20"),
    ],
)
def test_what_images_have_not_is_told(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "digits", "--out", str(tmp_path), *arguments]) == 1
    assert text in capsys.readouterr().err


def test_a_failed_export_keeps_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the same command with --resume has the same model to export."""
    seen: list[FittedImages] = []

    def fail(model: FittedImages, _: Path) -> Path:
        seen.append(model)
        raise exporter.ExportError("no space")

    monkeypatch.setattr("training.__main__.export", fail)
    command = ["fit", "digits", "--epochs", "1", "--out", str(tmp_path)]
    assert main(command) == 1
    assert "the same command with --resume exports it" in capsys.readouterr().err
    assert main(command) == 1
    assert "go on with --resume or drop it with --restart" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 1
    first, second = (dict(model.method.named_parameters()) for model in seen)
    assert all(torch.equal(first[name], second[name]) for name in first)


SHIPPED = MODELS / IMAGES


def test_a_step_changes_the_image_as_much_along_every_latent_feature() -> None:
    """Eq. (9), for the shipped model: D = s^2 / (2 lambda2 sigma^2) for a step s, with lambda2 = 50 for an image."""
    detector, examples = Detector.load(SHIPPED, CPU), json.loads((SHIPPED / "examples.json").read_text())
    z = np.array(examples["z"], dtype=np.float32)
    z = np.concatenate([z, (z[:, None] + z[None]).reshape(-1, z.shape[1]) / 2])  # and what lies between two of them
    latents = detector.manifest.latents
    assert latents is not None
    found = []
    for feature in np.argsort(-np.array(latents.deviations)):
        moved = z.copy()
        moved[:, feature] += 0.1
        change = np.square((detector.decode(moved) - detector.decode(z)).astype(np.float64) / 16).sum(axis=1)
        found.append(change.mean() / 0.1**2)
    assert np.std(found[:9]) / np.mean(found[:9]) < 0.15
    assert np.mean(found) == pytest.approx(1 / (2 * 50 / 12), rel=0.25)


def test_the_documented_traversal_goes_through_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SHIPPED, tmp_path / IMAGES)
    page = (ROOT / "docs" / "images.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    told: dict[str, Any] = {}
    with TestClient(create_app(Settings(models=tmp_path, provider="cpu"))) as client:
        wait_until_ready(client)
        monkeypatch.setattr("httpx.Client", lambda **_: client)
        exec(compile(program, "docs/images.md", "exec"), told)  # noqa: S102 - what readers are told to run
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]  # that is the log
    assert [len(line) for line in lines] == [5 * 8 + 4 * 3] * 8
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    documented = [line.ljust(52) for line in shown.splitlines()]
    assert sum(a != b for a, b in zip("".join(lines), "".join(documented), strict=True)) <= 2  # a processor may round
    images = told["images"]
    assert images.shape == (5, 8, 8)
    sessions = traversals(SHIPPED, features=1, steps=5)[0]
    assert images == pytest.approx(sessions, rel=1e-5, abs=1e-5)
    ends, steps = np.square(images[-1] - images[0]).sum(), np.square(np.diff(images, axis=0)).sum(axis=(1, 2))
    assert ends > 5 * steps.max() > 0
