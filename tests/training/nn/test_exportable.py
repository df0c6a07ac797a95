"""What is computed by other operators in float64 is the same; tests/contract/test_images.py has it in onnxruntime."""

import math

import pytest
import torch
from torch.nn import functional

from training.nn import exportable
from training.nn.gdn import GDN, IGDN


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2), (9, 2), (3, 3)])
def test_a_product_is_the_convolution(kernel: int, stride: int) -> None:
    x, weight, bias, around = draw(2, 3, 8, 12), draw(4, 3, kernel, kernel), draw(4), kernel // 2
    expected = functional.conv2d(x, weight, bias, stride, around)
    torch.testing.assert_close(exportable.convolve(x, weight, bias, stride, around), expected)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (9, 2), (3, 3)])
def test_a_product_is_the_transposed_convolution(kernel: int, stride: int) -> None:
    x, weight, bias, around = draw(2, 3, 4, 6), draw(3, 4, kernel, kernel), draw(4), kernel // 2
    expected = functional.conv_transpose2d(x, weight, bias, stride, around, output_padding=stride - 1)
    torch.testing.assert_close(exportable.convolve_transposed(x, weight, bias, stride, around), expected)


def test_softplus_and_log_sigmoid_are_the_same_far_out() -> None:
    x = torch.tensor([-800.0, -40.0, -1.0, 0.0, 1e-9, 3.0, 40.0, 800.0], dtype=torch.float64)
    expected = [0.0, math.exp(-40), math.log1p(math.exp(-1)), math.log(2), math.log(2) + 5e-10, 3.0485873515737424]
    assert exportable.softplus(x).tolist() == pytest.approx([*expected, 40.0, 800.0], rel=1e-14)
    torch.testing.assert_close(exportable.log_sigmoid(x), functional.logsigmoid(x), rtol=1e-14, atol=0)
    torch.testing.assert_close(exportable.softplus(x.float()), functional.softplus(x.float()))


@pytest.mark.parametrize("layer", [GDN, IGDN])
def test_normalization_is_the_same_in_float64(layer: type[GDN]) -> None:
    module, x = layer(3), draw(2, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(module.double()(x), module.float()(x.float()).double(), rtol=1e-5, atol=1e-5)
