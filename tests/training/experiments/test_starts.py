"""Where a fit may start from, other than at random."""

from dataclasses import replace

import pytest
import torch

from training.experiments.starts import restart_memberships, widen_to_isometry
from training.jobs import build
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.settings import Settings

SETTINGS = Settings(
    hidden=(8,),
    latent=3,
    components=3,
    h="identity",
    lambda1=1.0,
    lambda2=600.0,
    residuals=False,
    scaling="table",
    batch_size=64,
    epochs=1,
)


def blobs(rows: int = 90) -> torch.Tensor:
    centres = torch.tensor([[0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 5.0]])
    noise = 0.3 * torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    return centres[torch.arange(rows) % 3] + noise


def model(settings: Settings = SETTINGS) -> tuple[MixtureAutoencoder, torch.Tensor]:
    x = blobs()
    return build("RaDOGAGA", x, settings, seed=0), x


@torch.no_grad()
def test_a_widened_latent_has_the_variance_of_an_isometry_and_nothing_else_changes() -> None:
    method, x = model()
    decoded = method.decode(method.encode(x))
    memberships = method.responsibilities(method.encode(x).double())
    widen_to_isometry(method, x)
    z = method.encode(x)
    assert z.var(dim=0).sum().item() == pytest.approx(100 * method.scaler(x).var(dim=0).sum().item(), rel=1e-4)
    assert torch.allclose(method.decode(z), decoded, atol=1e-4)
    assert torch.allclose(method.responsibilities(z.double()), memberships, atol=1e-4)


@torch.no_grad()
def test_memberships_start_from_clusters() -> None:
    method, x = model()
    before = method.responsibilities(method.encode(x).double())
    restart_memberships(method, x, seed=0)
    found = method.responsibilities(method.encode(x).double()).argmax(dim=-1)
    assert sorted(found[:3].tolist()) == [0, 1, 2]
    assert torch.equal(found, found[:3].repeat(30))
    assert before.argmax(dim=-1).ne(found).any()
    assert method.estimation_network.first.weight.dtype == method.encoder.last.weight.dtype


def test_two_components_are_refused() -> None:
    method, x = model(replace(SETTINGS, components=2))
    with pytest.raises(ValueError, match="components is 2, expected at least 3"):
        restart_memberships(method, x, seed=0)
