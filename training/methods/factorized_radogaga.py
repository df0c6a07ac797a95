"""RaDOGAGA with independent latent features, which behaves as a continuous PCA of images."""

import torch
from torch import Tensor

from training.densities.factorized import DeepFactorized, UniformNoise
from training.draws import Draws
from training.methods.image_autoencoder import ImageAutoencoder
from training.methods.radogaga import RateDistortion
from training.nn.conv import ConvDecoder, ConvEncoder, ImageShape
from training.preprocessing import Scaler
from training.settings import ImageSettings

LARGEST = torch.finfo(torch.float32).max


def within_float32(x: Tensor) -> Tensor:
    """Returns values of any shape, those beyond float32's largest number as that number.

    What lies so far out is an anomaly, and should not be without a score for being one.
    """
    return x.clamp(-LARGEST, LARGEST)


class FactorizedRaDOGAGA(ImageAutoencoder, RateDistortion):
    r"""Creates a RaDOGAGA model of images with a factorized density over its latent.

    .. math:: P_z(z) = \prod_i P_{z_i}(z_i)

    each factor learned through its distribution function and convolved with the noise.

    Arguments:
        scaler: What scales raw rows (N, C H W) to values in [0, 1].
        shape: The shape of the images.
        settings: Sizes and weights; the rest of the settings belongs to the fit.

    Raises:
        ValueError: The images suit neither the network nor SSIM's windows, or are not as wide as the scaler.

    References:
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (15), section 4.3 and appendix B
        | Variational Image Compression with a Scale Hyperprior (Ballé et al., 2018), appendix 6
    """

    density: UniformNoise
    encoder: ConvEncoder
    decoder: ConvDecoder
    settings: ImageSettings

    def __init__(self, scaler: Scaler, shape: ImageShape, settings: ImageSettings) -> None:
        super().__init__(scaler, shape, settings)
        self.density = UniformNoise(DeepFactorized(settings.latent, scale=settings.density_scale))

    @property
    def lambdas(self) -> tuple[float, float]:
        r"""The weights beside a rate in nats per image; the settings' own are beside one in nats per pixel.

        The paper's (1, 0.1) can belong to nothing else: beside a rate per image, Eq. (9) would ask that
        :math:`1 / (2 \lambda_2 \sigma^2) = 60`, where 1 - SSIM is at most 2.
        """
        s, pixels = self.settings, self.shape.pixels
        return s.lambda1 * pixels, s.lambda2 * pixels

    def compare(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, ...]:
        return (self.distance(x, x_hat),)

    def rate(self, z: Tensor, *_: Tensor, draws: Draws | None = None) -> Tensor:  # noqa: ARG002
        return self.density.rate(z)

    def encode(self, x: Tensor) -> Tensor:
        return within_float32(super().encode(x))

    def decode(self, z: Tensor) -> Tensor:
        return within_float32(super().decode(z))

    def score(self, x: Tensor) -> Tensor:
        """Returns the cost (N,) of rows (N, C H W) in nats, the rate at z and lambda1 h(D), or the rate alone.

        The score is an energy, higher is more anomalous. The rate is what a row's latent costs and knows nothing of
        what the latent leaves out; the distortion is.
        """
        x = self.scaler(x)
        z = self.mean_latent(x)
        rate = self.rate(z)
        if self.settings.rate_only:
            return within_float32(rate)
        lambda1, _ = self.lambdas
        distortion: Tensor = self.scaled(self.distance(x, self.decoder(z)))
        return within_float32(rate + lambda1 * distortion)
