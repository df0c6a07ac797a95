"""A model that starts at the linear optimum is there before it is trained, and no worse behind it."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from torch import Tensor

from training.densities import em
from training.densities.codebook import Codebook
from training.densities.em import fit_mixture, moments_of
from training.densities.learned_mixture import LearnedMixture
from training.densities.mixture import GaussianMixture
from training.draws import Draws
from training.fitting import FitError, Member, Progress, Stopping, fit
from training.methods import linear_start
from training.methods.ensemble import Ensemble
from training.methods.linear_start import CodedEnsemble, LinearStartRaDOGAGA, latent_unit, principal
from training.preprocessing import Scaler
from training.settings import Settings

LAMBDA = 25.0


def settings(latent: int = 3, components: int = 2, epochs: int = 5) -> Settings:
    return Settings(
        hidden=(16, 16),
        latent=latent,
        components=components,
        h="identity",
        lambda1=LAMBDA,
        lambda2=LAMBDA,
        scaling="standard",
        batch_size=50,
        epochs=epochs,
        learning_rate=1e-3,
        rate_at="noisy",
        residuals=False,
    )


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Rows of two clusters on a bent sheet in five dimensions."""
    draw = np.random.default_rng(0)
    plane = draw.normal(size=(400, 2)) + 4 * (draw.random((400, 1)) < 0.3)
    bent = np.stack([plane[:, 0], plane[:, 1], plane[:, 0] ** 2, plane.sum(axis=1), plane[:, 0] - plane[:, 1]], axis=1)
    return torch.from_numpy((bent + 0.1 * draw.normal(size=bent.shape)).astype(np.float32))


def started(x: Tensor, own: Settings, seed: int = 0) -> LinearStartRaDOGAGA:
    torch.manual_seed(seed)
    method = LinearStartRaDOGAGA(Scaler.standardised(x), own)
    method.start(x, seed)
    return method


def test_it_starts_as_scaled_principal_components(x: Tensor) -> None:
    method = started(x, settings())
    scaled = method.scaler(x).double()
    centred = (scaled - scaled.mean(dim=0)).numpy()
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    unit = math.sqrt(2 * LAMBDA / 12)
    z = method.encode(x).detach().double().numpy()
    np.testing.assert_allclose(np.abs(z), np.abs(centred @ directions[:3].T * unit), atol=1e-4)
    kept = centred @ directions[:3].T @ directions[:3] + scaled.mean(dim=0).numpy()
    np.testing.assert_allclose(method.decoder(method.encode(x)).detach().numpy(), kept, atol=1e-4)
    assert latent_unit(LAMBDA) == pytest.approx(unit)


def test_many_columns_have_the_same_components(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    centre, variances, directions = principal(x, 3)
    monkeypatch.setattr(linear_start, "WIDE", 4)
    again = principal(x, 3)
    assert torch.equal(again[0], centre)
    torch.testing.assert_close(again[1], variances, rtol=1e-6, atol=0)
    torch.testing.assert_close((again[2].mT @ directions).abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
    assert directions.shape == again[2].shape == (5, 3)
    assert all(torch.equal(a, b) for a, b in zip(again, principal(x, 3), strict=True))


def test_noise_in_the_latent_is_noise_of_that_variance_in_a_feature(x: Tensor) -> None:
    method = started(x, settings(latent=5))
    losses = method.losses(x, Draws([0]))
    assert float(losses["perturbation"].mean().detach()) == pytest.approx(5 / 2, rel=0.05)  # 1 / (2 lambda) for each
    assert float(losses["distortion"].mean().detach()) == pytest.approx(0, abs=1e-6)


def test_it_scores_rate_and_distortion(x: Tensor) -> None:
    method = started(x, settings(components=1)).double()
    method.fit_density(x.double())
    rows = x[:20].double()
    z = method.encode(rows).detach()
    own = method.density
    rate = -multivariate_normal(own.means[0].numpy(), own.covariances[0].numpy()).logpdf(z.numpy())
    distortion = (method.scaler(rows) - method.decoder(z)).square().sum(dim=1).detach().numpy()
    np.testing.assert_allclose(method.score(rows).detach().numpy(), rate + LAMBDA * distortion, rtol=1e-9)


def test_training_lowers_the_loss_of_rows_it_does_not_see(x: Tensor) -> None:
    rows, held_out = torch.arange(300), torch.arange(300, 400)
    own = settings(epochs=60)
    method = started(x[rows], own)
    seen: list[float] = []

    def observe(progress: Progress) -> None:
        if progress.held_out is not None:
            seen.append(progress.held_out)

    with torch.no_grad():
        before = sum(float(term.mean()) for term in method.losses(x[held_out], Draws([0])).values())
    assert not fit([Member(method, rows, 0, held_out)], x, own, stopping=Stopping(5, 100), observer=observe)
    assert min(seen) < before - 0.5


def test_every_parameter_gets_a_gradient(x: Tensor) -> None:
    method = started(x, settings())
    sum(term.sum() for term in method.losses(x, Draws([0])).values()).backward()  # type: ignore[union-attr]
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        dead = name.startswith(("encoder.network.hidden", "decoder.network.hidden"))  # behind a layer of zeros
        assert dead or parameter.grad.abs().sum() > 0, name


def test_a_wider_mixture_is_the_same_density(x: Tensor) -> None:
    method = started(x, settings(components=2)).double()
    method.fit_density(x.double())
    before = method.score(x.double()).detach()
    method.widen(5)
    assert method.density.means.shape == (5, 3)
    torch.testing.assert_close(method.score(x.double()).detach(), before)


def test_members_of_different_numbers_of_components_make_an_ensemble(x: Tensor) -> None:
    members = [started(x, settings(components=count)) for count in (1, 3)]
    alone = []
    for member in members:
        member.double().fit_density(x)
        alone.append(member.score(x).detach())
        member.widen(3)
    ensemble = Ensemble(members)
    ensemble.fit_density(x)
    expected = torch.zeros(len(x), dtype=torch.float64)
    for energies in alone:
        low, middle, high = torch.quantile(energies, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        expected += (energies - middle) / (high - low) / 2
    torch.testing.assert_close(ensemble.score(x).detach(), expected)


def test_a_mixture_of_more_rows_than_are_worth_it_is_fitted_to_some(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_mixture(x, 2, 1 / 12, seed=0)
    monkeypatch.setattr(em, "FEWEST_ROWS", 100)
    assert np.array_equal(fit_mixture(x, 2, 1 / 12, seed=0).means_, whole.means_)
    monkeypatch.setattr(em, "WORK", 2 * 5**2 * 150)
    assert np.array_equal(fit_mixture(x, 2, 1 / 12, seed=0).means_, fit_mixture(x[::3], 2, 1 / 12, seed=0).means_)
    monkeypatch.setattr(em, "WORK", 1)
    assert np.array_equal(fit_mixture(x, 2, 1 / 12, seed=0).means_, fit_mixture(x[::4], 2, 1 / 12, seed=0).means_)


def test_principal_directions_are_sorted_and_orthonormal(x: Tensor) -> None:
    centre, variances, directions = principal(x, 64)
    assert torch.equal(variances, variances.sort(descending=True).values)
    torch.testing.assert_close(directions.T @ directions, torch.eye(5, dtype=torch.float64))
    projected = (x.double() - centre) @ directions
    torch.testing.assert_close(projected.square().mean(dim=0), variances)


def test_a_learned_mixture_is_the_mixture_it_takes(x: Tensor) -> None:
    found = moments_of(fit_mixture(x.double(), 3, 0.1, seed=0))
    learned, fixed = LearnedMixture(3, 5), GaussianMixture(*found)
    learned.load(*found)
    torch.testing.assert_close(learned.log_prob(x).detach().double(), fixed.log_prob(x.double()), rtol=1e-4, atol=1e-3)
    start = learned.as_start()
    np.testing.assert_allclose(start["weights_init"], found[0], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.inv(start["precisions_init"]), found[2], rtol=1e-3, atol=1e-4)


def test_held_out_rows_are_asked_for() -> None:
    x = torch.randn(60, 5)
    own = settings()
    with pytest.raises(FitError, match="there are no held-out rows, expected some to tell when to stop"):
        fit([Member(started(x, own), torch.arange(60), 0)], x, own, stopping=Stopping(5, 3))


def test_centres_are_as_far_as_they_are() -> None:
    draw = np.random.default_rng(0)
    z = torch.from_numpy(draw.normal(size=(200, 3)) + 5 * draw.integers(0, 4, (200, 1)))
    codebook = Codebook.fitted(z, 4, floor=0.5, seed=0)
    centres = codebook.centres.numpy()
    distances = cdist(z.numpy(), centres, "sqeuclidean").min(axis=1)
    assert codebook.variance.item() == pytest.approx(distances.mean() / 3 + 0.5)
    np.testing.assert_allclose(codebook.energy(z).numpy(), distances / (2 * codebook.variance.item()), rtol=1e-9)
    assert codebook.energy(codebook.centres).numpy() == pytest.approx(np.zeros(4), abs=1e-9)
    assert (codebook.energy(codebook.centres) >= 0).all()


def test_a_codebook_of_few_different_rows_is_fitted_without_a_warning() -> None:
    z = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(10, 1)
    assert torch.equal(Codebook.fitted(z, 8, floor=0.5, seed=0).energy(z), torch.zeros(20, dtype=torch.float64))


def test_centres_have_a_voice_in_an_ensemble(x: Tensor) -> None:
    members = [started(x, settings(components=2), seed).double() for seed in (0, 1)]
    for member in members:
        member.fit_density(x)
    with torch.no_grad():
        z = members[0].encode(x)
        ensemble = CodedEnsemble(members, Codebook.fitted(z, 8, floor=1 / 12, seed=0))
        ensemble.fit_density(x[:100])
        expected = [member.score(x) for member in members]
        expected.append(
            ensemble.codebook.energy(z) + LAMBDA * (members[0].scaler(x) - members[0].decoder(z)).square().sum(dim=-1)
        )
        scaled = []
        for energy in expected:
            low, middle, high = np.quantile(energy[:100].numpy(), [0.25, 0.5, 0.75])
            scaled.append((energy.numpy() - middle) / (high - low))
        np.testing.assert_allclose(ensemble.score(x).numpy(), np.mean(scaled, axis=0), rtol=1e-8, atol=1e-8)
    assert ensemble.medians.shape == (3,)
