"""Convolutions beside plain loops, and the networks' sizes beside the paper's."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.nn.conv import APPENDIX_F, Conv, ConvDecoder, ConvEncoder, ConvNetwork, ImageShape, rows_of

SHAPE = ImageShape(2, 8, 16)
NETWORK = ConvNetwork(kernels=(5, 3), channels=3, hidden=7, latent=4)


def convolved_by_loops(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    n, _, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    y = np.empty((n, outputs, height // 2, width // 2))
    for i in range(height // 2):
        for j in range(width // 2):
            patch = padded[:, :, 2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel]
            y[:, :, i, j] = np.einsum("ncij,ocij->no", patch, weight.numpy()) + bias.numpy()
    return torch.from_numpy(y)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_a_convolution_beside_plain_loops(kernel: int) -> None:
    layer = Conv(2, 3, kernel).double()
    layer.bias.data = drawn(3, seed=1)
    x = drawn(2, 2, 6, 8)
    expected = convolved_by_loops(x, layer.weight.detach(), layer.bias.detach())
    assert torch.allclose(layer(x), expected, rtol=1e-10)


@pytest.mark.parametrize("kernel", [3, 5, 9])
@torch.no_grad()
def test_a_transposed_convolution_is_the_convolutions_adjoint(kernel: int) -> None:
    up, down = Conv(3, 2, kernel, transposed=True).double(), Conv(2, 3, kernel).double()
    down.weight.data = up.weight.data
    x, y = drawn(1, 2, 6, 8), drawn(1, 3, 3, 4, seed=1)
    assert up(y).shape == x.shape
    assert float((down(x) * y).sum()) == pytest.approx(float((x * up(y)).sum()), rel=1e-10)


def test_the_network_of_appendix_f_has_its_sizes() -> None:
    shape = ImageShape(3, 64, 64)
    with torch.device("meta"):
        encoder, decoder = ConvEncoder(shape, APPENDIX_F), ConvDecoder(shape, APPENDIX_F)
    assert encoder.hidden.weight.shape == (1024, 8192)
    assert encoder.last.weight.shape == (8192, 256)
    assert decoder.hidden.weight.shape == (256, 8192)
    assert decoder.last.weight.shape == (8192, 1024)
    kernels = [layer.weight.shape for layer in encoder.convolutions if isinstance(layer, Conv)]
    assert kernels == [(64, 3, 9, 9), (64, 64, 5, 5), (64, 64, 5, 5), (64, 64, 5, 5)]
    kernels = [layer.weight.shape for layer in decoder.convolutions if isinstance(layer, Conv)]
    assert kernels == [(64, 64, 5, 5), (64, 64, 5, 5), (64, 64, 5, 5), (64, 3, 9, 9)]
    count = sum(parameter.numel() for net in (encoder, decoder) for parameter in net.parameters())
    assert count == pytest.approx(21.7e6, rel=0.01)


def test_rows_go_in_and_come_out() -> None:
    x = torch.rand(5, SHAPE.values)
    z = ConvEncoder(SHAPE, NETWORK)(x)
    assert z.shape == (5, 4)
    assert ConvDecoder(SHAPE, NETWORK)(z).shape == x.shape
    assert ConvEncoder(SHAPE, NETWORK, outputs=9)(x).shape == (5, 9)


def test_a_row_holds_an_image_channel_by_channel_and_row_by_row() -> None:
    x = torch.arange(SHAPE.values)[None]
    images = SHAPE.images(x)
    assert images.shape == (1, 2, 8, 16)
    assert int(images[0, 1, 3, 5]) == 1 * 8 * 16 + 3 * 16 + 5
    assert torch.equal(rows_of(images), x)


@pytest.mark.parametrize(
    ("shape", "network", "message"),
    [
        (ImageShape(1, 6, 8), NETWORK, "height is 6, expected a multiple of 4 for 2 layers"),
        (ImageShape(1, 8, 30), NETWORK, "width is 30, expected a multiple of 4 for 2 layers"),
        (SHAPE, ConvNetwork((5, 4), 3, 7, 4), "a kernel is 4, expected an odd number"),
    ],
)
def test_images_that_do_not_suit_are_refused(shape: ImageShape, network: ConvNetwork, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvEncoder(shape, network)
    with pytest.raises(ValueError, match=message):
        ConvDecoder(shape, network)


def test_every_parameter_gets_a_gradient() -> None:
    encoder, decoder = ConvEncoder(SHAPE, NETWORK), ConvDecoder(SHAPE, NETWORK)
    x = torch.rand(6, SHAPE.values)
    (decoder(encoder(x)) - x).square().sum().backward()
    for net in (encoder, decoder):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_a_stack_computes_what_its_members_do() -> None:
    nets = [nn.Sequential(ConvEncoder(SHAPE, NETWORK), ConvDecoder(SHAPE, NETWORK)).double() for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(nets)
    x = drawn(2, 3, SHAPE.values)
    together = torch.func.functional_call(nets[0], (parameters, buffers), (x,))
    alone = torch.stack([net(own) for net, own in zip(nets, x, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-12)
