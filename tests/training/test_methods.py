"""The laws that every method obeys, and RaDOGAGA's own formulas written a second way."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import small_job, small_model, small_table
from training.datasets.base import protocol_a
from training.fitting import build, fit
from training.jobs import METHODS, FittedModel
from training.methods.radogaga import RaDOGAGA

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


def score_grows_far_from_the_data(model: FittedModel) -> None:
    far = torch.full((1, model.dataset.x.shape[1]), 1.0) * 10.0 ** torch.arange(1, 6)[:, None]
    assert (model.method.score(far).diff() > 0).all()


def decode_inverts_shape_of_encode(model: FittedModel) -> None:
    x = rows(model)
    z = model.method.encode(x)
    assert z.shape == (len(x), model.settings.latent)
    assert model.method.decode(z).shape == x.shape


def decode_returns_raw_values(model: FittedModel) -> None:
    x = torch.from_numpy(model.dataset.x[model.split.normal])
    error = (model.method.decode(model.method.encode(x)) - x).square().mean()
    assert error < x.var(dim=0).mean() / 2


def same_seed_same_scores(model: FittedModel) -> None:
    x = rows(model)
    again = small_model(model.job.seed)
    assert torch.equal(again.method.score(x), model.method.score(x))
    assert not torch.equal(small_model(1).method.score(x), model.method.score(x))


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
    assert not model.method.training
    assert torch.equal(model.method.score(x), model.method.score(x))
    for name, value in model.method.state_dict().items():
        assert torch.equal(value, state[name]), name


def every_parameter_gets_a_gradient(model: FittedModel) -> None:
    x = torch.from_numpy(model.dataset.x[model.split.normal])
    method = build(x, model.settings, 0)
    method.losses(x).total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def every_parameter_moves(model: FittedModel) -> None:
    x = torch.from_numpy(model.dataset.x[model.split.normal])
    before = dict(build(x, model.settings, model.job.seed).named_parameters())
    for name, parameter in model.method.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def the_state_is_the_whole_model(model: FittedModel) -> None:
    x = torch.from_numpy(model.dataset.x[model.split.normal])
    restored = build(torch.zeros_like(x[:2]), model.settings, 99)
    restored.load_state_dict(model.method.state_dict())
    restored.eval()
    assert torch.equal(restored.score(x), model.method.score(x))


LAWS: list[Law] = [
    score_is_one_number_per_row,
    score_is_higher_off_the_data,
    score_grows_far_from_the_data,
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


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_law(method: str, law: Law, fitted: FittedModel) -> None:
    assert type(fitted.method).__name__ == method
    with torch.set_grad_enabled("gradient" in law.__name__ or "same_seed" in law.__name__):
        law(fitted)


@pytest.fixture
def untrained() -> RaDOGAGA:
    table = small_table()
    return build(torch.from_numpy(table.x[~table.y]), small_job().settings, 0)


def test_the_loss_is_that_of_the_paper(untrained: RaDOGAGA) -> None:
    x = torch.from_numpy(small_table().x[:100])
    untrained.eval()
    torch.manual_seed(3)
    losses = untrained.losses(x)
    torch.manual_seed(3)
    scaled = untrained.scaler(x)
    z = untrained.encoder(scaled)
    x_hat, x_check = untrained.decoder(z), untrained.decoder(z + torch.rand_like(z) - 0.5)
    features = np.concatenate(
        [
            z.detach().numpy(),
            (np.linalg.norm((scaled - x_hat).detach(), axis=1) / np.linalg.norm(scaled, axis=1))[:, None],
            torch.nn.functional.cosine_similarity(scaled, x_hat).detach().numpy()[:, None],
        ],
        axis=1,
    )
    memberships = (
        torch.softmax(untrained.estimation_network(torch.from_numpy(features).float()), dim=-1).detach().numpy()
    )
    density = np.zeros(len(x))
    for k in range(2):
        own = memberships[:, k].astype(np.float64)
        mean = np.average(features, axis=0, weights=own)
        covariance = np.cov(features.T, aweights=own, ddof=0) + untrained.variance_floor * np.eye(8)
        distance = np.einsum("nd,de,ne->n", features - mean, np.linalg.inv(covariance), features - mean)
        density += own.mean() * np.exp(-0.5 * distance) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    assert np.allclose(losses.rate.detach(), -np.log(density), rtol=1e-3)
    distortion = 100 * np.log(((scaled - x_hat) ** 2).sum(dim=1).detach().numpy() + 1e-3)
    assert np.allclose(losses.distortion.detach(), distortion, rtol=1e-4)
    perturbation = 1000 * ((x_hat - x_check) ** 2).sum(dim=1)
    assert torch.allclose(losses.perturbation, perturbation)
    assert torch.allclose(losses.total, (losses.rate + losses.distortion + losses.perturbation).mean())


def test_h_is_d_or_its_logarithm() -> None:
    table = small_table()
    x = torch.from_numpy(table.x[~table.y])
    linear = build(x, replace(small_job().settings, h="identity"), 0).eval()
    log = build(x, small_job().settings, 0).eval()
    d = linear.losses(x).distortion / linear.lambda1
    assert torch.allclose(log.losses(x).distortion / log.lambda1, torch.log(d + 1e-3), atol=1e-5)


def test_the_networks_have_the_papers_shapes(untrained: RaDOGAGA) -> None:
    def widths(network: nn.Module) -> list[int]:
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        return [layers[0].in_features, *(layer.out_features for layer in layers)]

    assert widths(untrained.encoder) == [6, 30, 24, 6]
    assert widths(untrained.decoder) == [6, 24, 30, 6]
    assert widths(untrained.estimation_network) == [8, 10, 2]


def test_the_residual_features_are_trained_through(untrained: RaDOGAGA) -> None:
    x = torch.from_numpy(small_table().x[:100])
    rate = untrained.losses(x).rate.mean()
    (gradient,) = torch.autograd.grad(rate, list(untrained.decoder.parameters())[-2:-1])
    assert gradient.abs().sum() > 0  # the decoder has no other way to the rate


def test_the_density_is_computed_in_float64(untrained: RaDOGAGA) -> None:
    x = untrained.scaler(torch.from_numpy(small_table().x[:100]))
    z = untrained.encoder(x)
    assert untrained.density_features(x, z, untrained.decoder(z)).dtype == torch.float64
    assert untrained.losses(x).rate.dtype == torch.float64
    y = untrained.scored_features(x)
    assert not torch.equal(y[:, -2:].float().double(), y[:, -2:])  # the residuals themselves, not float32's


def test_noise_is_uniform_with_variance_a_twelfth() -> None:
    torch.manual_seed(0)
    noise = RaDOGAGA.noise(torch.empty(200_000, 1))
    assert -0.5 <= noise.min() < -0.499
    assert 0.499 < noise.max() <= 0.5
    assert noise.mean().item() == pytest.approx(0, abs=3e-3)
    assert noise.var().item() == pytest.approx(1 / 12, rel=1e-2)


def test_dropout_is_on_while_training_and_off_while_scoring(untrained: RaDOGAGA) -> None:
    y = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    untrained.train()
    assert not torch.equal(untrained.responsibilities(y), untrained.responsibilities(y))
    untrained.fit_density(torch.from_numpy(small_table().x[:100]))
    assert torch.equal(untrained.responsibilities(y), untrained.responsibilities(y))


def test_scoring_uses_the_mixture_of_all_training_rows(fitted: FittedModel) -> None:
    x = torch.from_numpy(fitted.dataset.x[fitted.split.normal])
    with torch.no_grad():
        y = fitted.method.scored_features(x)
        own = fitted.method.responsibilities(y).numpy()
    for k in range(2):
        expected = np.cov(y.numpy().T, aweights=own[:, k], ddof=0) + fitted.settings.variance_floor * np.eye(8)
        assert np.allclose(fitted.method.density.covariances[k], expected, rtol=1e-5, atol=1e-9)


def test_a_row_of_zeros_and_a_constant_column_have_a_finite_loss() -> None:
    x = torch.rand(60, 6, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 0.25
    x[0] = 0.0
    method = build(x, small_job().settings, 0)
    losses = method.losses(x)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert losses.total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_the_fit_sees_no_anomaly_and_no_test_row() -> None:
    table = small_table()
    split = protocol_a(table.y, 0)
    model = small_model()
    x = torch.from_numpy(table.x[split.normal])
    assert torch.equal(model.method.scaler.lower, x.amin(dim=0))
    changed = table.x.copy()
    changed[split.test] = 1e6
    method = build(torch.from_numpy(changed[split.normal]), small_job().settings, 0)
    fit(method, torch.from_numpy(changed[split.normal]), small_job().settings, 0)
    with torch.no_grad():
        assert torch.equal(method.score(x), model.method.score(x))
