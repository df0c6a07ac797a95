"""beta-VAE, which the paper compares its factorized density with."""

import torch
from torch import Tensor

from training.draws import Draws
from training.methods.base import Losses
from training.methods.image_autoencoder import ImageAutoencoder
from training.nn.conv import ImageShape
from training.preprocessing import Scaler
from training.settings import ImageSettings


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Returns the Kullback-Leibler divergence of diagonal normals from the standard normal, in nats.

    .. math:: \tfrac12 \sum_i (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)

    Arguments:
        mean: Means of shape (..., N, L).
        log_variance: Logarithms of the variances, of shape (..., N, L).

    Returns:
        One divergence per row, of shape (..., N).

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), appendix B
    """
    return 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).sum(dim=-1)


class BetaVAE(ImageAutoencoder):
    r"""Creates a beta-VAE of images.

    .. math:: L = \frac1\beta D(x, \hat{x}) + KL(q(z | x) \,\|\, N(0, I))

    with z drawn from q(z | x), whose mean and log-variance are the encoder's two branches. It is the paper's
    D + beta KL, divided by beta so that it is in nats.

    Arguments:
        scaler: What scales raw rows (N, C H W) to values in [0, 1].
        shape: The shape of the images.
        settings: Sizes and weights; the rest of the settings belongs to the fit.

    Raises:
        ValueError: The images suit neither the network nor SSIM's windows, or are not as wide as the scaler.

    References:
        | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017)
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.3.1 and appendix F
    """

    def __init__(self, scaler: Scaler, shape: ImageShape, settings: ImageSettings) -> None:
        super().__init__(scaler, shape, settings, branches=2)
        self.density = torch.nn.Identity()  # the prior has nothing to learn

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns means and log-variances (..., N, L) of scaled rows (..., N, C H W)."""
        outputs: Tensor = self.encoder(x)
        mean, log_variance = outputs.chunk(2, dim=-1)
        return mean, log_variance

    def losses(self, x: Tensor, draws: Draws) -> Losses:
        """Returns the two terms of the negative ELBO for a batch of shape (..., N, M)."""
        x = self.scaler(x)
        mean, log_variance = self.posterior(x)
        z = mean + (0.5 * log_variance).exp() * self.noise(mean, draws)
        distortion = self.distance(x, self.decoder(z))  # D(x, x_hat)

        return {"distortion": distortion / self.settings.beta, "divergence": divergence(mean, log_variance)}

    @staticmethod
    def noise(z: Tensor, draws: Draws) -> Tensor:
        """Draws standard normal values of z's shape."""
        normal: Tensor = torch.special.ndtri(draws.uniform(*z.shape[-2:]).reshape(z.shape))
        return normal

    def mean_latent(self, x: Tensor) -> Tensor:
        """Returns the means (..., N, L) of scaled rows (..., N, C H W)."""
        return self.posterior(x)[0]

    def score(self, x: Tensor) -> Tensor:
        """Returns the negative ELBO (N,) of rows (N, C H W) in nats, its distortion at the posterior's mean.

        The score is an energy that bounds -log p but for a constant: higher is more anomalous.
        """
        x = self.scaler(x)
        mean, log_variance = self.posterior(x)
        return self.distance(x, self.decoder(mean)) / self.settings.beta + divergence(mean, log_variance)
