"""What methods for images share: convolutional networks, and a distance between images."""

from typing import ClassVar

import torch
from torch import Tensor

from training.distances import squared_error, ssim_distance
from training.methods.base import Method
from training.nn.conv import ConvDecoder, ConvEncoder, ConvNetwork, ImageShape
from training.preprocessing import Scaler
from training.settings import ImageSettings

GREY = 0.5
"""What images are at the start of training, but for a little. SSIM can't tell an image from its negative, -x, for both
factors change their sign; from zero a decoder may learn either."""


class ImageAutoencoder(Method):
    """Creates an autoencoder of images; a row holds one, channel by channel and in each row by row.

    Networks stay in float32 when they are frozen: onnxruntime has no other convolution for CPUs.

    Arguments:
        scaler: What scales raw rows (N, C H W) to values in [0, 1]; see `brightness`.
        shape: The shape of the images.
        settings: Sizes and weights; the rest of the settings belongs to the fit.
        branches: How many outputs the encoder has for each latent feature.

    Raises:
        ValueError: The images suit neither the network nor SSIM's windows, or are not as wide as the scaler.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.3 and appendix F
    """

    frozen_dtype: ClassVar[torch.dtype] = torch.float32
    rows_at_once: ClassVar[int] = 256

    def __init__(self, scaler: Scaler, shape: ImageShape, settings: ImageSettings, branches: int = 1) -> None:
        super().__init__()
        if scaler.features != shape.values:
            raise ValueError(f"the scaler is of {scaler.features} features, expected {shape.values} values of an image")
        smallest = min(shape.height, shape.width)
        if settings.distance == "ssim" and not 2 <= settings.window <= smallest:
            raise ValueError(f"window is {settings.window}, expected at least 2 and at most {smallest}")
        network = ConvNetwork(settings.kernels, settings.channels, settings.hidden, settings.latent)
        self.latent = settings.latent
        self.scaler = scaler
        self.shape = shape
        self.encoder = ConvEncoder(shape, network, branches * settings.latent)
        self.decoder = ConvDecoder(shape, network, start=GREY)
        self.settings = settings

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns D(x, y) (..., N) of scaled rows (..., N, C H W)."""
        if self.settings.distance == "squared_error":
            return squared_error(x, y)
        return ssim_distance(self.shape.images(x), self.shape.images(y), window=self.settings.window)

    def mean_latent(self, x: Tensor) -> Tensor:
        """Returns latents (..., N, L) of scaled rows (..., N, C H W), without noise."""
        z: Tensor = self.encoder(x)
        return z

    def fit_density(self, x: Tensor) -> None:
        """Does nothing: the density was learned with the rest."""

    def encode(self, x: Tensor) -> Tensor:
        return self.mean_latent(self.scaler(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.scaler.inverse(self.decoder(z))


def brightness(shape: ImageShape, largest: float) -> Scaler:
    """Returns the scaler of raw values from 0 to `largest`, such as 255, to [0, 1]."""
    return Scaler(torch.zeros(shape.values), torch.full((shape.values,), largest))
