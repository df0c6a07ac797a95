"""The convolutional autoencoder of the paper's appendix F, and smaller ones of its kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.nn.exportable import convolve, convolve_transposed, softplus
from training.nn.gdn import GDN, IGDN
from training.nn.members import over_members
from training.nn.mlp import Linear

STRIDE = 2


@dataclass(frozen=True)
class ImageShape:
    """The shape of an image.

    Attributes:
        channels: The number of channels C.
        height: The number of rows of pixels H.
        width: The number of columns of pixels W.
    """

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """The number of values C H W, which is the width of a row that holds an image."""
        return self.channels * self.pixels

    @property
    def pixels(self) -> int:
        """The number of pixels H W."""
        return self.height * self.width

    def images(self, rows: Tensor) -> Tensor:
        """Returns rows (..., N, C H W) as images (..., N, C, H, W)."""
        return rows.reshape(*rows.shape[:-1], self.channels, self.height, self.width)


def rows_of(images: Tensor) -> Tensor:
    """Returns images (..., N, C, H, W) as rows (..., N, C H W)."""
    return images.flatten(-3)


@dataclass(frozen=True)
class ConvNetwork:
    """The sizes of a convolutional autoencoder.

    Attributes:
        kernels: The width of each convolution's kernel in the encoder; the decoder mirrors them.
        channels: The channels of each convolution.
        hidden: The width of the fully connected layer between features and latent.
        latent: The number of latent features L.
    """

    kernels: tuple[int, ...]
    channels: int
    hidden: int
    latent: int

    def features(self, shape: ImageShape) -> ImageShape:
        """Returns the shape of what the last convolution makes of an image.

        Raises:
            ValueError: A kernel is even, or the image can't be halved as often as there are convolutions.
        """
        factor = STRIDE ** len(self.kernels)
        if even := [kernel for kernel in self.kernels if kernel % 2 == 0]:
            raise ValueError(f"a kernel is {even[0]}, expected an odd number")
        for name, size in (("height", shape.height), ("width", shape.width)):
            if size % factor:
                raise ValueError(f"{name} is {size}, expected a multiple of {factor} for {len(self.kernels)} layers")
        return ImageShape(self.channels, shape.height // factor, shape.width // factor)


APPENDIX_F = ConvNetwork(kernels=(9, 5, 5, 5), channels=64, hidden=8192, latent=256)
"""The network of section 4.3, 21.7 million parameters with images of 64 x 64 (Kato et al., 2019, appendix F)."""


class Conv(nn.Module):
    r"""Creates a convolution that halves height and width, or a transposed one that doubles them.

    Weights start Glorot-uniform and biases at zero, as fully connected layers do.

    Arguments:
        inputs: The channels of the input.
        outputs: The channels of the output.
        kernel: The kernel's height and width, an odd number.
        transposed: Whether to double.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, transposed: bool = False) -> None:
        super().__init__()
        channels = (inputs, outputs) if transposed else (outputs, inputs)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(*channels, kernel, kernel)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kernel = kernel
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (..., N, inputs, H, W) to (..., N, outputs, H / 2, W / 2), or 2 H and 2 W."""
        return over_members(self.convolve, x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Maps images (N, inputs, H, W) by weights and a bias (outputs,)."""
        around = self.kernel // 2
        return (convolve_transposed if self.transposed else convolve)(x, weight, bias, STRIDE, around)


class ConvEncoder(nn.Module):
    """Creates the encoder: convolutions with GDN, a fully connected layer with softplus, and a linear last layer.

    Arguments:
        shape: The shape of the images.
        network: The sizes.
        outputs: The width of the output; the network's latent features unless given.

    Raises:
        ValueError: The images don't suit the network.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), appendix F
    """

    def __init__(self, shape: ImageShape, network: ConvNetwork, outputs: int | None = None) -> None:
        super().__init__()
        features = network.features(shape)
        inputs = [shape.channels, *[network.channels] * (len(network.kernels) - 1)]
        layers: list[nn.Module] = []
        for channels, kernel in zip(inputs, network.kernels, strict=True):
            layers += [Conv(channels, network.channels, kernel), GDN(network.channels)]
        self.shape = shape
        self.convolutions = nn.ModuleList(layers)
        self.hidden = Linear(features.values, network.hidden)
        self.last = Linear(network.hidden, network.latent if outputs is None else outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps rows (..., N, C H W) to (..., N, outputs)."""
        features = rows_of(through(self.convolutions, self.shape.images(x)))
        y: Tensor = self.last(softplus(self.hidden(features)))
        return y


class ConvDecoder(nn.Module):
    """Creates the decoder: two fully connected layers with softplus, and transposed convolutions with IGDN.

    Arguments:
        shape: The shape of the images.
        network: The sizes.
        start: The last layer's bias, about what images are before training.

    Raises:
        ValueError: The images don't suit the network.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), appendix F
    """

    def __init__(self, shape: ImageShape, network: ConvNetwork, start: float = 0.0) -> None:
        super().__init__()
        self.features = network.features(shape)
        self.hidden = Linear(network.latent, network.hidden)
        self.last = Linear(network.hidden, self.features.values)
        layers: list[nn.Module] = []
        for kernel in network.kernels[:0:-1]:
            layers += [Conv(network.channels, network.channels, kernel, transposed=True), IGDN(network.channels)]
        last = Conv(network.channels, shape.channels, network.kernels[0], transposed=True)
        self.convolutions = nn.ModuleList([*layers, last])
        nn.init.constant_(last.bias, start)

    def forward(self, z: Tensor) -> Tensor:
        """Maps latents (..., N, L) to rows (..., N, C H W)."""
        features = softplus(self.last(softplus(self.hidden(z))))
        return rows_of(through(self.convolutions, self.features.images(features)))


def through(layers: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
    """Sends images through layers, one after the other."""
    for layer in layers:
        x = layer(x)
    return x
