"""Where a fit may start from, other than at random: both starts need the rows alone, no label and no density."""

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from training.methods.mixture_autoencoder import NOISE_VARIANCE, MixtureAutoencoder
from training.nn.mlp import EstimationNetwork

STARTS_OF_KMEANS = 10

SMALLEST_DEVIATION = 1e-12


@torch.no_grad()
def widen_to_isometry(method: MixtureAutoencoder, x: Tensor) -> None:
    r"""Gives an untrained latent the scale that Eq. (9) says it ends with, and leaves all else as it is.

    .. math:: z \leftarrow c z, \quad c^2 = 2 \lambda_2 \sigma^2 \, \sum_m \mathrm{Var}[x_m] / \sum_i \mathrm{Var}[z_i]

    An isometry up to the factor :math:`\sqrt{2 \lambda_2 \sigma^2}` changes the total variance by its square. What
    reads the latent, the decoder and the estimation network, is divided by c, so that they compute what they did.
    Adam changes a weight by about its learning rate a step, whatever the loss: to widen a latent by 408, as
    RaDOGAGA(d) asks for on the toy data, takes it tens of thousands of steps.

    Arguments:
        method: The untrained model, whose latent is wide enough to hold the rows' variance.
        x: Raw rows (N, M).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (9) and (10)
    """
    ratio = method.scaler(x).var(dim=0).sum() / method.encode(x).var(dim=0).sum()
    factor = (2 * method.settings.lambda2 * NOISE_VARIANCE * ratio).sqrt()
    method.encoder.last.weight.mul_(factor)
    method.decoder.get_parameter("hidden.0.weight").div_(factor)
    method.estimation_network.first.weight[: method.latent].div_(factor)


@torch.no_grad()
def restart_memberships(method: MixtureAutoencoder, x: Tensor, seed: int) -> None:
    """Replaces the estimation network by a new one, which predicts the clusters that k-means finds in the latent.

    Its hidden layer is drawn anew, to see standardised features; its last layer is the logistic regression of the
    clusters. EM, too, is commonly started from k-means.

    Arguments:
        method: The model, with at least 3 components.
        x: Raw rows (N, M).
        seed: The seed of the new weights and of k-means.

    Raises:
        ValueError: There are fewer than 3 components.
    """
    settings = method.settings
    if settings.components < 3:
        raise ValueError(f"components is {settings.components}, expected at least 3")
    y = method.scored_features(x).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EstimationNetwork(y.shape[1], settings.estimation, settings.components, settings.dropout).double()
    network.first.weight.div_(y.std(dim=0).clamp_min(SMALLEST_DEVIATION)[:, None])
    network.first.bias.copy_(-y.mean(dim=0) @ network.first.weight)
    clusters = KMeans(settings.components, n_init=STARTS_OF_KMEANS, random_state=seed).fit_predict(y.numpy())
    hidden = torch.tanh(network.first(y)).numpy()
    regression = LogisticRegression(max_iter=1000).fit(hidden, clusters)
    network.last.weight.copy_(torch.from_numpy(np.ascontiguousarray(regression.coef_.T)))
    network.last.bias.copy_(torch.from_numpy(regression.intercept_))
    method.estimation_network = network.to(method.encoder.last.weight.dtype)
