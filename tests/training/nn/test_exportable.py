"""What is computed by other operators in float64 is the same, in PyTorch and in onnxruntime."""

import math
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from training.export import Graph, write_graph
from training.nn import exportable
from training.nn.conv import ConvDecoder, ConvEncoder, ConvNetwork, ImageShape
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


class Through(nn.Module):
    """An encoder and its decoder, float32 outside and float64 inside."""

    def __init__(self) -> None:
        super().__init__()
        shape, network = ImageShape(1, 8, 8), ConvNetwork(kernels=(5, 3), channels=4, hidden=16, latent=3)
        torch.manual_seed(0)
        self.encoder, self.decoder = ConvEncoder(shape, network), ConvDecoder(shape, network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.decoder(self.encoder(x.double()))
        return y.float()


def test_onnxruntime_computes_them_in_float64(tmp_path: Path) -> None:
    module, x = Through().double().eval().requires_grad_(False), draw(16, 64).float()
    write_graph(cast(Graph, module), "x", 64, tmp_path / "graph.onnx", "x_hat", ["N", 64])
    assert "Conv" not in {node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node}
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-6, atol=1e-6)
    alone = [session.run(None, {"x": row[None].numpy()})[0][0] for row in x]
    assert np.array_equal(found, np.stack(alone))
