"""The laws of both methods for images on drawn shapes, and their losses written a second way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from training.distances import ssim
from training.draws import Draws
from training.export import Graph, check_parity, write_graph
from training.fitting import FitInterrupted, Member, fit, unfinished
from training.methods.beta_vae import BetaVAE, divergence
from training.methods.factorized_radogaga import LARGEST, FactorizedRaDOGAGA
from training.methods.image_autoencoder import ImageAutoencoder, brightness
from training.methods.stacking import stack, unstack
from training.nn.conv import ImageShape
from training.preprocessing import Scaler
from training.settings import ImageSettings

SHAPE = ImageShape(1, 8, 8)
SETTINGS = ImageSettings(
    kernels=(5, 3), channels=4, hidden=16, latent=3, window=4, epochs=12, learning_rate=1e-2, lambda1=10, lambda2=1
)
METHODS: dict[str, type[ImageAutoencoder]] = {"RaDOGAGA": FactorizedRaDOGAGA, "beta-VAE": BetaVAE}

pytestmark = pytest.mark.parametrize("kind", METHODS)


def blobs(n: int = 240, seed: int = 0) -> Tensor:
    """Bright spots at places that vary on a grey ground, 0 to 255."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform(2, 5, size=(n, 2, 1, 1))
    rows, columns = np.mgrid[0:8, 0:8]
    distance = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2
    noise = generator.uniform(0, 10, size=(n, 8, 8))
    return torch.from_numpy((30 + 200 * np.exp(-distance / 4) + noise).reshape(n, 64).astype(np.uint8))


def build(kind: str, seed: int = 0, settings: ImageSettings = SETTINGS) -> ImageAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return METHODS[kind](brightness(SHAPE, 255.0), SHAPE, settings)


def fitted(kind: str, seed: int = 0) -> ImageAutoencoder:
    method, x = build(kind, seed), blobs()
    assert not fit([Member(method, torch.arange(len(x)), seed)], x, SETTINGS)
    return method.requires_grad_(False)


@pytest.fixture(scope="module")
def models() -> dict[str, ImageAutoencoder]:
    return {kind: fitted(kind) for kind in METHODS}


def test_scores_latents_and_rows_have_their_shapes(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    x, method = blobs(10, seed=1), models[kind]
    assert method.score(x).shape == (10,)
    assert method.score(x).isfinite().all()
    assert method.encode(x).shape == (10, 3)
    assert method.decode(method.encode(x)).shape == (10, 64)


def test_rows_come_back_as_raw_values(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    x = blobs(100, seed=1)
    error = (models[kind].decode(models[kind].encode(x)) - x).square().mean()
    assert error < x.float().var(dim=0).mean()


def test_scores_are_higher_off_the_data(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    score, x = models[kind].score, blobs(100, seed=1)
    upside_down = 255 - x
    assert score(upside_down).min() > score(x).max()


def test_a_seed_decides_all(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    x = blobs(10, seed=1)
    assert torch.equal(fitted(kind).score(x), models[kind].score(x))
    assert not torch.equal(build(kind, seed=1).score(x), build(kind).score(x))


def test_a_rows_score_depends_on_no_other_row(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    score, x = models[kind].score, blobs(20, seed=1)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(score(x[order]), score(x)[order], rtol=1e-5)
    assert torch.allclose(torch.cat([score(row[None]) for row in x]), score(x), rtol=1e-4)


def test_the_state_is_the_whole_model(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    restored = build(kind, seed=7)
    restored.load_state_dict(models[kind].state_dict())
    x = blobs(10, seed=1)
    assert torch.equal(restored.score(x), models[kind].score(x))


def test_every_parameter_gets_a_gradient_and_moves(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    method = build(kind)
    losses = method.losses(blobs(30), Draws([0]))
    torch.stack(list(losses.values())).mean(dim=-1).sum().backward()  # type: ignore[no-untyped-call]
    for (name, parameter), moved in zip(method.named_parameters(), models[kind].parameters(), strict=True):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert not torch.equal(parameter, moved), name


def test_a_stack_computes_what_its_members_do(kind: str) -> None:
    methods, x = [build(kind, seed) for seed in range(2)], blobs(40).view(2, 20, 64)
    together = stack(methods).losses(x, Draws([5, 6]))
    for index, (method, seed) in enumerate(zip(methods, (5, 6), strict=True)):
        for name, term in method.losses(x[index], Draws([seed])).items():
            assert torch.allclose(together[name][index], term.reshape(-1), rtol=1e-4), name
    copies = [build(kind, 9) for _ in methods]
    unstack(stack(methods), copies)
    assert torch.equal(copies[1].score(x[0]), methods[1].score(x[0]))


def test_graphs_compute_the_same(kind: str, models: dict[str, ImageAutoencoder], tmp_path: Path) -> None:
    graph = Graph(models[kind], "score")
    write_graph(graph, "x", 64, tmp_path / "scorer.onnx", "score", ["N"])
    check_parity(graph, blobs(50, seed=1).float().numpy(), tmp_path / "scorer.onnx")


def test_an_interrupted_fit_goes_on_where_it_stopped(
    kind: str, models: dict[str, ImageAutoencoder], tmp_path: Path
) -> None:
    x, rows, checkpoint = blobs(), torch.arange(240), tmp_path / "fit.pt"
    with pytest.raises(FitInterrupted, match="stopped after step 1 of 48"):
        fit([Member(build(kind), rows, 0)], x, SETTINGS, checkpoint=checkpoint, deadline=0.0)
    halfway = build(kind, seed=3)
    assert unfinished([Member(halfway, rows, 0)], x, SETTINGS, checkpoint) == 1
    assert not torch.equal(halfway.encode(x), build(kind).encode(x))
    resumed, seen = build(kind, seed=4), list[int]()
    fit(
        [Member(resumed, rows, 0)],
        x,
        SETTINGS,
        look=lambda stacked, progress: seen.append(progress.step * stacked.latent),
        checkpoint=checkpoint,
        resume=True,
    )
    assert seen == [3 * step for step in range(2, 49)]
    assert torch.equal(resumed.score(x), models[kind].score(x))


@pytest.mark.parametrize(
    ("scaler", "changes", "message"),
    [
        (Scaler(torch.zeros(9), torch.ones(9)), {}, "the scaler is of 9 features, expected 64 values"),
        (None, {"window": 9}, "window is 9, expected at least 2 and at most 8"),
        (None, {"window": 1}, "window is 1, expected at least 2 and at most 8"),
        (None, {"kernels": (3, 3, 3, 3)}, "height is 8, expected a multiple of 16 for 4 layers"),
    ],
)
def test_what_does_not_suit_is_refused(kind: str, scaler: Scaler | None, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METHODS[kind](scaler or brightness(SHAPE, 255.0), SHAPE, replace(SETTINGS, **changes))


@pytest.mark.parametrize("distance", ["ssim", "squared_error"])
def test_the_distance_is_of_images_in_0_to_1(kind: str, distance: str) -> None:
    method = build(kind, settings=replace(SETTINGS, distance=distance))  # type: ignore[arg-type]
    x, y = (method.scaler(blobs(5, seed)) for seed in range(2))
    assert x.max() <= 1
    images = [rows.view(5, 1, 8, 8) for rows in (x, y)]
    expected = 1 - ssim(*images, window=4) if distance == "ssim" else ((x - y) ** 2).sum(dim=1)
    assert torch.allclose(method.distance(x, y), expected)


@pytest.mark.parametrize("rate_at", ["z", "noisy"])
@pytest.mark.parametrize("distance", ["ssim", "squared_error"])
@torch.no_grad()
def test_the_losses_are_the_papers(kind: str, distance: str, rate_at: str) -> None:
    settings = replace(SETTINGS, distance=distance, rate_at=rate_at)  # type: ignore[arg-type]
    method, x = build(kind, settings=settings), blobs(20)
    uniform = Draws([3]).uniform(20, 3)[0]
    scaled = x / 255
    losses = {name: term.reshape(-1) for name, term in method.losses(x, Draws([3])).items()}
    if isinstance(method, FactorizedRaDOGAGA):
        z = method.encoder(scaled)
        noisy = z + uniform - 0.5
        x_hat, x_check = method.decoder(z), method.decoder(noisy)
        at = noisy if rate_at == "noisy" else z
        mass = method.density.density.log_cdf(at + 0.5).exp() - method.density.density.log_cdf(at - 0.5).exp()
        assert torch.allclose(losses["rate"], -mass.log().sum(dim=1), rtol=1e-3)
        assert torch.allclose(losses["distortion"], 10 * 64 * method.distance(scaled, x_hat), rtol=1e-4)
        assert torch.allclose(losses["perturbation"], 64 * method.distance(x_hat, x_check), rtol=1e-2, atol=1e-4)
        assert set(losses) == {"rate", "distortion", "perturbation"}
    else:
        outputs = method.encoder(scaled)
        mean, deviation = outputs[:, :3], (outputs[:, 3:] / 2).exp()
        z = mean + deviation * torch.special.ndtri(uniform)
        standard = Normal(torch.zeros(20, 3), torch.ones(20, 3))
        expected = kl_divergence(Independent(Normal(mean, deviation), 1), Independent(standard, 1))
        assert torch.allclose(losses["divergence"], expected, rtol=1e-4, atol=1e-6)
        assert torch.allclose(losses["distortion"], method.distance(scaled, method.decoder(z)) / 1e-4)
        assert set(losses) == {"distortion", "divergence"}


def test_scores_are_made_of_the_terms(kind: str, models: dict[str, ImageAutoencoder]) -> None:
    method, x = models[kind], blobs(20, seed=1)
    scaled = method.scaler(x)
    distance = method.distance(scaled, method.scaler(method.decode(method.encode(x))))
    if isinstance(method, FactorizedRaDOGAGA):
        rate = method.density.rate(method.encode(x))
        assert torch.allclose(method.score(x), rate + 640 * distance, rtol=1e-4)
        alone = build(kind, settings=replace(SETTINGS, rate_only=True))
        alone.load_state_dict(method.state_dict())
        assert torch.equal(alone.score(x), rate)
        torch.nn.init.constant_(alone.double().encoder.last.bias, 1e300)
        assert alone.score(x).tolist() == [LARGEST] * 20
    else:
        assert isinstance(method, BetaVAE)
        assert torch.allclose(method.score(x), distance / 1e-4 + divergence(*method.posterior(scaled)), rtol=1e-4)


def test_the_divergence_beside_closed_forms(kind: str) -> None:  # noqa: ARG001
    zeros = torch.zeros(1, 2, dtype=torch.float64)
    assert divergence(zeros, zeros).tolist() == [0.0]
    assert divergence(zeros + 3, zeros).tolist() == [9.0]
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, dtype=torch.float64, generator=generator) * 3
    log_variance = torch.randn(2, dtype=torch.float64, generator=generator) * 2
    own = MultivariateNormal(mean, torch.diag(log_variance.exp()))
    standard = MultivariateNormal(zeros[0], torch.eye(2, dtype=torch.float64))
    assert divergence(mean[None], log_variance[None]).item() == pytest.approx(kl_divergence(own, standard).item())
