"""The laws that every method obeys, and RaDOGAGA's own formulas written a second way."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.conftest import small_job, small_model, small_rows, small_table
from training.datasets.base import protocol_a
from training.draws import Draws
from training.fitting import Member, fit
from training.jobs import METHODS, SEEDS_BETWEEN_MEMBERS, FittedModel, build
from training.methods.ensemble import Ensemble
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.methods.radogaga import RaDOGAGA
from training.methods.stacking import stack, unstack
from training.nn.mlp import EstimationNetwork, Linear
from training.settings import MethodName

Rows = NDArray[np.float64]

Law = Callable[[FittedModel], None]


def rows(model: FittedModel) -> Tensor:
    return torch.from_numpy(model.dataset.x[model.split.test])


def score_is_one_number_per_row(model: FittedModel) -> None:
    x = rows(model)
    assert model.method.score(x).shape == (len(x),)
    assert model.method.score(x).isfinite().all()


def score_is_higher_off_the_data(model: FittedModel) -> None:
    x, y = rows(model), torch.from_numpy(model.dataset.y[model.split.test])
    scores = model.method.score(x)
    assert scores[y].median() > scores[~y].quantile(0.95)


def score_stays_high_far_from_the_data(model: FittedModel) -> None:
    """It need not grow without end: tanh bounds the latent, and the relative distance tends to 1."""
    far = torch.full((1, model.dataset.x.shape[1]), 1.0) * 10.0 ** torch.arange(1, 31)[:, None]
    assert model.method.score(far).isfinite().all()
    assert model.method.score(far).min() > model.method.score(normal_rows(model)).max()


def decode_inverts_shape_of_encode(model: FittedModel) -> None:
    x = rows(model)
    z = model.method.encode(x)
    assert z.shape == (len(x), model.job.settings.latent)
    assert model.method.decode(z).shape == x.shape


def decode_returns_raw_values(model: FittedModel) -> None:
    x = torch.from_numpy(model.dataset.x[model.split.normal])
    error = (model.method.decode(model.method.encode(x)) - x).square().mean()
    assert error < x.var(dim=0).mean() / 2


def same_seed_same_scores(model: FittedModel) -> None:
    x = rows(model)
    assert torch.equal(small_model(model.job).method.score(x), model.method.score(x))
    assert not torch.equal(small_model(replace(model.job, seed=1)).method.score(x), model.method.score(x))


def row_order_does_not_matter(model: FittedModel) -> None:
    x = rows(model)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.method.score(x[order]), model.method.score(x)[order], rtol=1e-5, atol=1e-5)


def batch_size_does_not_matter(model: FittedModel) -> None:
    x = rows(model)[:40]
    alone = torch.cat([model.method.score(row[None]) for row in x])
    assert torch.allclose(alone, model.method.score(x), rtol=1e-4, atol=1e-4)


def scoring_is_without_dropout_and_leaves_no_trace(model: FittedModel) -> None:
    x = rows(model)
    state = {name: value.clone() for name, value in model.method.state_dict().items()}
    assert torch.equal(model.method.score(x), model.method.score(x))
    for name, value in model.method.state_dict().items():
        assert torch.equal(value, state[name]), name


def every_parameter_gets_a_gradient(model: FittedModel) -> None:
    for method in untrained_members(model):
        losses = method.losses(normal_rows(model), Draws([0]))
        torch.stack(list(losses.values())).mean(dim=-1).sum().backward()  # type: ignore[no-untyped-call]
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def every_parameter_moves(model: FittedModel) -> None:
    for before, after in zip(untrained_members(model), members(model), strict=True):
        start = dict(before.named_parameters())
        for name, parameter in after.named_parameters():
            assert not torch.equal(parameter, start[name].double()), name


def the_state_is_the_whole_model(model: FittedModel) -> None:
    x = rows(model)
    empty = [
        build(model.job.method, torch.zeros(2, x.shape[1]), model.job.settings, 99).double() for _ in members(model)
    ]
    restored = empty[0] if isinstance(model.method, MixtureAutoencoder) else Ensemble(empty)
    restored.load_state_dict(model.method.state_dict())
    assert torch.equal(restored.score(x), model.method.score(x))


def normal_rows(model: FittedModel) -> Tensor:
    return torch.from_numpy(model.dataset.x[model.split.normal])


def members(model: FittedModel) -> list[MixtureAutoencoder]:
    if isinstance(model.method, MixtureAutoencoder):
        return [model.method]
    assert isinstance(model.method, Ensemble)
    assert isinstance(model.method.first, MixtureAutoencoder)
    found = [copy.deepcopy(model.method.first) for _ in model.method.medians]
    unstack(model.method.stacked, found)
    return found


def untrained_members(model: FittedModel) -> list[MixtureAutoencoder]:
    seeds = [model.job.seed + number * SEEDS_BETWEEN_MEMBERS for number in range(model.job.settings.members)]
    return [build(model.job.method, normal_rows(model), model.job.settings, seed) for seed in seeds]


LAWS: list[Law] = [
    score_is_one_number_per_row,
    score_is_higher_off_the_data,
    score_stays_high_far_from_the_data,
    decode_inverts_shape_of_encode,
    decode_returns_raw_values,
    same_seed_same_scores,
    row_order_does_not_matter,
    batch_size_does_not_matter,
    scoring_is_without_dropout_and_leaves_no_trace,
    every_parameter_gets_a_gradient,
    every_parameter_moves,
    the_state_is_the_whole_model,
]


@pytest.fixture(scope="module", params=[*METHODS, "ensemble"])
def model(request: pytest.FixtureRequest) -> FittedModel:
    """A fitted model of each kind."""
    if request.param == "ensemble":
        return small_model(small_job(members=3))
    if request.param == "DAGMM":  # whose own lambda2 keeps residuals from shrinking
        return small_model(small_job(method="DAGMM", epochs=200, learning_rate=5e-3, lambda2=1e-7))
    return small_model(small_job())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Law, model: FittedModel) -> None:
    with torch.set_grad_enabled("gradient" in law.__name__ or "same_seed" in law.__name__):
        law(model)


@pytest.fixture
def untrained() -> RaDOGAGA:
    method = build("RaDOGAGA", small_rows(), small_job().settings, 0)
    assert isinstance(method, RaDOGAGA)
    return method


def energies_in_numpy(method: MixtureAutoencoder, scaled: Tensor, z: Tensor, x_hat: Tensor) -> tuple[Rows, Rows]:
    """Writes Eq. (17) to (19) a second way, without dropout; returns energies (N,) and covariances (K, D, D)."""
    x, own = scaled.detach().numpy(), x_hat.detach().numpy()
    distance = np.linalg.norm(x - own, axis=1) / np.linalg.norm(x, axis=1)
    cosine = (x * own).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(own, axis=1)
    features = np.concatenate([z.detach().numpy(), distance[:, None], cosine[:, None]], axis=1).astype(np.float64)
    logits = method.estimation_network(torch.from_numpy(features).float()).detach().double()
    memberships = torch.softmax(logits, dim=-1).numpy()
    density, covariances = np.zeros(len(x)), []
    for k in range(memberships.shape[1]):
        weights = memberships[:, k]
        mean = np.average(features, axis=0, weights=weights)
        covariance = np.cov(features.T, aweights=weights, ddof=0) + method.settings.variance_floor * np.eye(len(mean))
        squared = np.einsum("nd,de,ne->n", features - mean, np.linalg.inv(covariance), features - mean)
        density += weights.mean() * np.exp(-0.5 * squared) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
        covariances.append(covariance)
    return -np.log(density), np.stack(covariances)


def without_dropout(method: MixtureAutoencoder) -> None:
    method.estimation_network.dropout = 0.0


def test_the_loss_is_that_of_the_paper(untrained: RaDOGAGA) -> None:
    without_dropout(untrained)
    x = torch.from_numpy(small_table().x[:100])
    losses = untrained.losses(x, Draws([3]))
    scaled = untrained.scaler(x)
    z = untrained.encoder(scaled)
    x_hat, x_check = untrained.decoder(z), untrained.decoder(z + Draws([3]).uniform(100, 6)[0] - 0.5)
    assert np.allclose(losses["rate"].detach(), energies_in_numpy(untrained, scaled, z, x_hat)[0], rtol=1e-3)
    distortion = 100 * np.log(((scaled - x_hat) ** 2).sum(dim=1).detach().numpy() + 1e-3)
    assert np.allclose(losses["distortion"].detach(), distortion, rtol=1e-4)
    assert torch.allclose(losses["perturbation"], 1000 * ((x_hat - x_check) ** 2).sum(dim=1))


def test_the_loss_of_dagmm_is_that_of_the_paper() -> None:
    method = build("DAGMM", small_rows(), small_job(method="DAGMM").settings, 0)
    without_dropout(method)
    x = torch.from_numpy(small_table().x[:100])
    losses = method.losses(x, Draws([3]))
    scaled = method.scaler(x)
    z = method.encoder(scaled)
    x_hat = method.decoder(z)
    energies, covariances = energies_in_numpy(method, scaled, z, x_hat)
    assert np.allclose(losses["rate"].detach(), 0.1 * energies, rtol=1e-3)
    assert torch.allclose(losses["distortion"], ((scaled - x_hat) ** 2).sum(dim=1))
    penalty = 0.005 * (1 / covariances.diagonal(axis1=1, axis2=2)).sum()
    assert losses["penalty"].shape == (100,)
    assert np.allclose(losses["penalty"].detach(), penalty, rtol=1e-3)


def test_the_rate_may_be_taken_at_the_noisy_latent(untrained: RaDOGAGA) -> None:
    x = torch.from_numpy(small_table().x[:100])
    noisy = build("RaDOGAGA", small_rows(), replace(untrained.settings, rate_at="noisy"), 0)
    for method in (untrained, noisy):
        without_dropout(method)
    scaled = noisy.scaler(x)
    z = noisy.encoder(scaled)
    shifted = z + Draws([3]).uniform(100, 6)[0] - 0.5
    energies, _ = energies_in_numpy(noisy, scaled, shifted, noisy.decoder(z))
    assert np.allclose(noisy.losses(x, Draws([3]))["rate"].detach(), energies, rtol=1e-3)
    for method in (untrained, noisy):
        method.double().fit_density(x)
    added = noisy.density.covariances - untrained.density.covariances
    assert torch.allclose(added, torch.diag(torch.tensor([1 / 12] * 6 + [0.0] * 2)).double(), atol=1e-8)


def test_h_may_be_applied_to_the_mean(untrained: RaDOGAGA) -> None:
    d = torch.tensor([0.1, 0.3])
    assert torch.allclose(untrained.scaled(d), torch.log(d + 1e-3))
    untrained.settings = replace(untrained.settings, h_of="batch")
    assert torch.allclose(untrained.scaled(d), torch.log(torch.tensor([0.201, 0.201])))


def test_the_residual_features_may_be_left_away() -> None:
    method = build("RaDOGAGA", small_rows(), replace(small_job().settings, residuals=False), 0)
    z = method.encode(small_rows()[:5])
    assert torch.equal(method.scored_features(small_rows()[:5]), z.double())
    assert method.density.means.shape == (2, 6)


def test_an_ensemble_of_rows_that_are_copies_has_finite_scores() -> None:
    model = small_model(small_job(members=2))
    assert isinstance(model.method, Ensemble)
    x = normal_rows(model)[:1].repeat(50, 1)
    model.method.fit_density(x)
    with torch.no_grad():
        assert model.method.score(rows(model)).abs().max() < 1e6
        assert model.method.score(x).abs().max() < 1e-6


def test_an_ensemble_is_the_mean_of_scaled_energies() -> None:
    model = small_model(small_job(members=3))
    x, expected = rows(model), np.zeros(len(model.split.test))
    for member in members(model):
        member.fit_density(normal_rows(model))
        with torch.no_grad():
            energies = member.score(normal_rows(model)).numpy()
            low, middle, high = np.quantile(energies, [0.25, 0.5, 0.75])
            expected += (member.score(x).numpy() - middle) / (high - low) / 3
    with torch.no_grad():
        assert np.allclose(model.method.score(x), expected)
        assert torch.equal(model.method.encode(x), members(model)[0].encode(x))
    assert not torch.equal(members(model)[0].encode(x), members(model)[1].encode(x))


def test_h_is_d_or_its_logarithm() -> None:
    x, settings = small_rows(), small_job().settings
    linear = build("RaDOGAGA", x, replace(settings, h="identity"), 0).losses(x, Draws([0]))["distortion"]
    log = build("RaDOGAGA", x, settings, 0).losses(x, Draws([0]))["distortion"]
    assert torch.allclose(log / settings.lambda1, torch.log(linear / settings.lambda1 + 1e-3), atol=1e-5)


def test_the_networks_have_the_papers_shapes(untrained: RaDOGAGA) -> None:
    def widths(network: nn.Module) -> list[int]:
        layers = [layer for layer in network.modules() if isinstance(layer, Linear)]
        return [layers[0].weight.shape[0], *(layer.weight.shape[1] for layer in layers)]

    assert widths(untrained.encoder) == [6, 30, 24, 6]
    assert widths(untrained.decoder) == [6, 24, 30, 6]
    assert widths(untrained.estimation_network) == [8, 10, 2]


def test_the_residual_features_are_trained_through(untrained: RaDOGAGA) -> None:
    x = torch.from_numpy(small_table().x[:100])
    rate = untrained.losses(x, Draws([0]))["rate"].mean()
    (gradient,) = torch.autograd.grad(rate, [untrained.decoder.last.weight])
    assert gradient.abs().sum() > 0  # the decoder has no other way to the rate


def test_what_is_scored_is_computed_in_float64(untrained: RaDOGAGA) -> None:
    x = torch.from_numpy(small_table().x[:100])
    y = untrained.double().scored_features(x)
    assert not torch.equal(y[:, -2:].float().double(), y[:, -2:])  # the residuals themselves, not float32's


def test_noise_is_uniform_with_variance_a_twelfth() -> None:
    noise = RaDOGAGA.noise(torch.empty(200_000, 1), Draws([0]))
    assert -0.5 <= noise.min() < -0.499
    assert 0.499 < noise.max() <= 0.5
    assert noise.mean().item() == pytest.approx(0, abs=3e-3)
    assert noise.var().item() == pytest.approx(1 / 12, rel=1e-2)


def test_a_stack_computes_what_its_members_do() -> None:
    x = small_rows()
    own = [build("RaDOGAGA", x + i, small_job().settings, i) for i in range(3)]
    batches = torch.stack([x[50 * i : 50 * i + 50] for i in range(3)])
    together = stack(own).losses(batches, Draws([5, 6, 7]))
    for i, method in enumerate(own):
        for name, alone in method.losses(batches[i], Draws([5 + i])).items():
            assert torch.allclose(together[name][i], alone, rtol=1e-4, atol=1e-4), name


def test_dropout_is_on_while_training_and_off_while_scoring(untrained: RaDOGAGA) -> None:
    y = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    network, draws = untrained.estimation_network, Draws([0])
    assert not torch.equal(network(y, draws), network(y, draws))
    assert torch.equal(untrained.responsibilities(y), untrained.responsibilities(y))


def test_dropout_drops_half_and_doubles_the_rest() -> None:
    network = EstimationNetwork(3, 4000, 1, dropout=0.5)
    with torch.no_grad():
        network.first.weight.fill_(0.0)
        network.first.bias.fill_(100.0)
        network.last.weight.fill_(1.0)
        assert network(torch.zeros(1, 3)).item() == 4000
        kept = network(torch.zeros(20, 3), Draws([0])) / 2
    assert kept.mean().item() == pytest.approx(2000, rel=0.02)
    assert kept.std().item() == pytest.approx(np.sqrt(4000 * 0.25), rel=0.5)


def test_scoring_uses_the_mixture_of_all_training_rows(fitted: FittedModel) -> None:
    (method,), x = members(fitted), normal_rows(fitted)
    with torch.no_grad():
        y = method.scored_features(x)
        own = method.responsibilities(y).numpy()
    assert isinstance(fitted.method, MixtureAutoencoder)
    for k in range(2):
        expected = np.cov(y.numpy().T, aweights=own[:, k], ddof=0) + fitted.job.settings.variance_floor * np.eye(8)
        assert np.allclose(fitted.method.density.covariances[k], expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_of_zeros_and_a_constant_column_have_a_finite_loss(name: MethodName) -> None:
    x = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 0.25
    x[0] = 0.0
    method = build(name, x, small_job().settings, 0)
    total = torch.stack(list(method.losses(x, Draws([0])).values())).sum(dim=0).mean()
    total.backward()  # type: ignore[no-untyped-call]
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_the_fit_sees_no_anomaly_and_no_test_row() -> None:
    table = small_table()
    split = protocol_a(table.y, 0)
    model = small_model(small_job())
    x = torch.from_numpy(table.x[split.normal])
    assert torch.equal(model.method.scaler.offset, x.amin().double().expand(6))
    changed = torch.from_numpy(table.x.copy())
    changed[split.test] = 1e6
    rows = torch.from_numpy(split.normal)
    method = build("RaDOGAGA", changed[rows], small_job().settings, 0)
    assert fit([Member(method, rows, 0)], changed, small_job().settings) == {}
    with torch.no_grad():
        assert torch.equal(method.score(x), model.method.score(x))
