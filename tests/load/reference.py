"""The straightforward way to train: one model at a time, layers and losses as they are written down, nothing shared.

Kept to measure against, as public ports of DAGMM do it: covariances by an einsum over K x D x D in float64, inverses
and determinants from `torch.linalg`, Adam and dropout as they come. The loss is RaDOGAGA's, Eq. (4).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.settings import Settings


class Reference:
    """One RaDOGAGA model with its optimiser, trained on rows that are scaled already."""

    def __init__(self, x: Tensor, settings: Settings) -> None:
        features, latent, dimensions = x.shape[1], settings.latent, settings.latent + 2
        self.settings = settings
        self.encoder = network([features, *settings.hidden, latent])
        self.decoder = network([latent, *reversed(settings.hidden), features])
        self.estimation = nn.Sequential(
            nn.Linear(dimensions, settings.estimation),
            nn.Tanh(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.estimation, settings.components),
        )
        parameters = [*self.encoder.parameters(), *self.decoder.parameters(), *self.estimation.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
        self.x = x
        self.step = 0

    def advance(self) -> float:
        """Takes a step on the next rows of the table and returns its loss."""
        size = min(self.settings.batch_size, len(self.x))
        start = self.step * size % (len(self.x) - size + 1)
        loss = self.loss(self.x[start : start + size])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def loss(self, x: Tensor) -> Tensor:
        """Returns Eq. (4) of a batch (N, M)."""
        z = self.encoder(x)
        x_hat = self.decoder(z)
        x_check = self.decoder(z + torch.rand_like(z) - 0.5)
        distance = (x - x_hat).norm(dim=1) / x.norm(dim=1)
        y = torch.cat([z, distance[:, None], nn.functional.cosine_similarity(x, x_hat)[:, None]], dim=1)
        energy = self.energy(y.double(), torch.softmax(self.estimation(y), dim=1).double())
        distortion = (x - x_hat).square().sum(dim=1)
        if self.settings.h == "log":
            distortion = torch.log(distortion + 1e-3)
        perturbation = (x_hat - x_check).square().sum(dim=1)
        total: Tensor = (energy + self.settings.lambda1 * distortion + self.settings.lambda2 * perturbation).mean()
        return total

    def energy(self, y: Tensor, gamma: Tensor) -> Tensor:
        """Returns Eq. (19) for rows (N, D) with memberships (N, K)."""
        counts = gamma.sum(dim=0)
        means = torch.einsum("nk,nd->kd", gamma, y) / counts[:, None]
        centred = y[:, None] - means
        covariances = torch.einsum("nk,nkd,nke->kde", gamma, centred, centred) / counts[:, None, None]
        covariances = covariances + self.settings.variance_floor * torch.eye(y.shape[1], dtype=y.dtype)
        squared = torch.einsum("nkd,kde,nke->nk", centred, torch.linalg.inv(covariances), centred)
        constants = (counts / len(y)).log() - 0.5 * torch.logdet(2 * math.pi * covariances)
        return -torch.logsumexp(constants - 0.5 * squared, dim=1)


def network(sizes: list[int]) -> nn.Sequential:
    """Creates fully connected layers with tanh between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
