"""Figures 4 and 5 from end to end on drawn images: fits that stop and go on, lines, pictures, and where they land."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from training.experiments import face_fits, faces
from training.experiments.base import Request
from training.experiments.face_fits import Recipe, checkpoints_folder, read_curve, untrained
from training.experiments.faces import Figure4, Figure5, curve_file
from training.fitting import FitError, Progress
from training.methods.factorized_radogaga import FactorizedRaDOGAGA
from training.methods.image_autoencoder import brightness
from training.settings import ImageSettings

SMALL = ImageSettings(
    kernels=(3,), channels=3, hidden=12, latent=10, window=4, epochs=4, batch_size=32, learning_rate=5e-3
)

RECIPE = Recipe(size=8, settings={"RaDOGAGA": SMALL, "beta-VAE": SMALL}, steps_between_looks=5, measured=20)


def drawn_faces(size: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, size=(130, 3, 1, 1)) + generator.integers(-40, 40, size=(130, 3, size, size))
    rows = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8).reshape(130, -1))
    return rows[:100], rows[100:]


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_fits, "rows_of_faces", drawn_faces)
    monkeypatch.setattr(faces, "RECIPES", {"reduced": RECIPE})
    monkeypatch.setenv("RADOGAGA_CHECKPOINTS", str(tmp_path / "checkpoints"))


def request(docs: Path, seconds: float = math.inf, recipes: list[str] | None = None) -> Request:
    return Request((), recipes, (), 1, docs, time.monotonic() + seconds)


def quiet() -> Console:
    return Console(quiet=True)


def lines_of(docs: Path, name: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (docs / "results" / f"{name}.jsonl").read_text().splitlines()]


def test_both_figures_share_their_fits_and_no_face_lands_in_docs(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    assert Figure4().state(request(docs)) == "0/2"
    Figure4().reproduce(request(docs), quiet())
    assert Figure4().state(request(docs)) == "2/2"
    written = lines_of(docs, "figure4")
    assert [line["method"] for line in written] == ["RaDOGAGA", "beta-VAE"]
    for line in written:
        metrics = line["metrics"]
        assert (metrics["step"], metrics["steps"]) == (12, 12)  # of 100 images the last 4 join the batch before
        assert len(metrics["variances"]) == 10
        assert metrics["variances"] == sorted(metrics["variances"], reverse=True)
        assert len(metrics["sensitivities"]) == 9
        assert ("theory" in metrics) == (line["method"] == "RaDOGAGA")
        for found in metrics["isometry"].values():
            assert -1 <= found["correlation"] <= 1
    assert written[0]["metrics"]["theory"] == pytest.approx(6 / (0.1 * 64))
    before = {path: path.stat().st_mtime_ns for path in checkpoints_folder().iterdir()}
    Figure5().reproduce(request(docs), quiet())
    for path, written_at in before.items():
        assert path.stat().st_mtime_ns == written_at, "a fit was done again"
    pictures = sorted(checkpoints_folder().glob("*.png"))
    assert len(pictures) == 2
    with Image.open(pictures[0]) as picture:
        assert picture.size == (9 * 10, 10 * 10)
    text = Figure4().render(docs) + Figure5().render(docs)
    assert sorted(path.name for path in docs.rglob("*.png")) == ["faces-curves.png", "figure4-reduced.png"]
    for link in ("figures/figure4-reduced.png", "figures/faces-curves.png", "results/faces/reduced-radogaga.jsonl"):
        assert link in text
        assert (docs / link).exists()
    assert "| `reduced` | RaDOGAGA | 1 - SSIM | celeba-10000 8x8 | 12 of 12 |" in text
    assert Figure4().render(docs) in text, "the same lines, the same text"


def test_an_unfinished_fit_is_measured_and_gone_on_with(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    run = Figure4().runs(request(docs))[0]
    for figure in (Figure4(), Figure5()):  # the first starts both fits, and the second finds no time to go on
        figure.reproduce(request(docs, seconds=0), quiet())
        assert figure.state(request(docs)) == "0/2"
        steps = [(line["metrics"]["step"], line["metrics"]["steps"]) for line in lines_of(docs, figure.name)]
        assert steps == [(1, 12), (1, 12)]
    assert "| `reduced` | RaDOGAGA | 1 - SSIM | celeba-10000 8x8 | 1 of 12 |" in Figure4().render(docs)
    Figure4().reproduce(request(docs), quiet())
    assert Figure4().state(request(docs)) == "2/2"
    assert "12 of 12" in Figure4().render(docs)
    whole = tmp_path / "whole"
    for path in checkpoints_folder().iterdir():
        path.unlink()
    Figure4().reproduce(request(whole), quiet())
    for mine, other in zip(lines_of(docs, "figure4")[2:], lines_of(whole, "figure4"), strict=True):
        assert mine["metrics"]["variances"] == other["metrics"]["variances"]
    curve, again = (read_curve(curve_file(folder, run)) for folder in (docs, whole))
    assert [line["step"] for line in curve] == [5, 10, 12]
    assert [line["ssim"] for line in curve] == [line["ssim"] for line in again]


def test_fits_are_kept_in_a_folder_that_git_ignores_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoints_folder().name == "checkpoints"
    monkeypatch.delenv("RADOGAGA_CHECKPOINTS")
    assert checkpoints_folder() == Path(".checkpoints")
    ignored = (Path(__file__).parents[3] / ".gitignore").read_text().splitlines()
    assert f"{checkpoints_folder()}/" in ignored


def test_a_curve_forgets_what_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text("".join(json.dumps({"step": step, "seconds": step, "ssim": 0.5}) + "\n" for step in (5, 10, 12)))
    recorder = face_fits.Recorder(path, untrained("RaDOGAGA", RECIPE), drawn_faces(8)[1], 5)
    assert recorder.seconds == 12
    recorder.look(untrained("RaDOGAGA", RECIPE), Progress(step=7, steps=12, epoch=1, epochs=1, terms={"rate": 1.0}))
    assert [line["step"] for line in recorder.lines] == [5]
    assert 5 <= recorder.seconds < 6


@pytest.mark.parametrize("line", ["no JSON", "5", "null", "{}", '{"step": 5}', '{"step": "five", "seconds": 1}'])
def test_a_damaged_curve_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text('{"step": 5, "seconds": 1.0}\n' + line + "\n")
    with pytest.raises(FitError, match="curve.jsonl, line 2, is .*, expected a JSON object .*; delete the file"):
        read_curve(path)


def test_a_fit_without_checkpoint_starts_its_curve_anew(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    curve = curve_file(docs, Figure4().runs(request(docs))[0])
    curve.parent.mkdir(parents=True)
    curve.write_text('{"step": 10, "seconds": 3.0}\n')
    fitted = face_fits.fit_faces("RaDOGAGA", RECIPE, curve, quiet(), "", deadline=0.0)
    assert (fitted.step, read_curve(curve)) == (1, [])
    assert fitted.seconds < 3


def test_recipes_choose_the_fits(tmp_path: Path) -> None:
    assert len(Figure4().runs(request(tmp_path, recipes=["reduced"]))) == 2
    assert Figure4().runs(request(tmp_path, recipes=["robust"])) == []


def test_the_full_network_is_that_of_appendix_f() -> None:
    settings = face_fits.RECIPES["full"].settings["RaDOGAGA"]
    assert (settings.lambda1, settings.lambda2, settings.beta, settings.learning_rate) == (1.0, 0.1, 1e-4, 1e-4)
    with torch.device("meta"):
        method = FactorizedRaDOGAGA(
            brightness(face_fits.RECIPES["full"].shape, 255.0), face_fits.RECIPES["full"].shape, settings
        )
    networks = [*method.encoder.parameters(), *method.decoder.parameters()]
    assert sum(parameter.numel() for parameter in networks) == pytest.approx(21.7e6, rel=0.01)
    assert method.lambdas == pytest.approx((4096.0, 409.6))
