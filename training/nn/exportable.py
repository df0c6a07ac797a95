"""Functions in operators that onnxruntime's CPU has in float64, for it has neither convolutions there nor softplus.

A frozen model is evaluated in float64, so that a row's score has the same bits alone and in a batch. In float32 these
functions are PyTorch's own; convolutions as products of matrices cost little where images are small.
"""

import torch
from torch import Tensor
from torch.nn import functional


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Returns what ``functional.conv2d`` does.

    Arguments:
        x: Images (N, I, H, W).
        weight: Weights (O, I, K, K).
        bias: Constants (O,).
        stride: Pixels between two places of the kernel.
        padding: Zeros around the image.
    """
    if x.dtype != torch.float64:
        return functional.conv2d(x, weight, bias, stride, padding)
    height, width = ((size + 2 * padding - weight.shape[-1]) // stride + 1 for size in x.shape[-2:])
    sources = [
        _sources(out, side, weight.shape[-1], stride, padding)
        for out, side in zip((height, width), x.shape[-2:], strict=True)
    ]
    return _product(x, weight, bias, *sources)


def convolve_transposed(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Returns what ``functional.conv_transpose2d`` does with an output that is `stride` times the input.

    Arguments:
        x: Images (N, I, H, W).
        weight: Weights (I, O, K, K), with an odd K.
        bias: Constants (O,).
        stride: Pixels of the output for each of the input.
        padding: What is cut off around the output.
    """
    if x.dtype != torch.float64:
        return functional.conv_transpose2d(x, weight, bias, stride, padding, output_padding=stride - 1)
    products = weight.flatten(1).mT @ x.flatten(-2)  # (N, O K K, H W), each pixel by each weight
    outputs, side = weight.shape[1], weight.shape[-1]
    height, width = x.shape[-2:]
    rows, columns = (_contributions(size, side, stride, padding) for size in (height, width))
    taps = rows[0][:, None, :, None] * side + columns[0][None, :, None, :]
    pixels = rows[1][:, None, :, None] * width + columns[1][None, :, None, :]
    nothing = (rows[1] < 0)[:, None, :, None] | (columns[1] < 0)[None, :, None, :]
    terms = torch.where(nothing, side**2 * height * width, taps * height * width + pixels)  # (T, T, 2 H, 2 W)
    padded = functional.pad(products.reshape(-1, outputs, side**2 * height * width), (0, 1))  # a zero behind the last
    found = padded.index_select(-1, terms.flatten()).reshape(-1, outputs, terms.shape[0] ** 2, terms[0, 0].numel())
    return (found.sum(dim=2) + bias[:, None]).reshape(-1, outputs, *terms.shape[-2:])


def _sources(out: int, side: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Returns which place of the input each of the kernel's meets at each place of the output (K, out), -1 for none."""
    place = stride * torch.arange(out) + torch.arange(kernel)[:, None] - padding
    return torch.where((place >= 0) & (place < side), place, -1)


def _contributions(side: int, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Returns by which of the kernel's places, and from which of the input's, each of the output's is reached.

    Both have the shape (T, out), for the T places of the kernel that are a stride apart; the latter is -1 for none.
    """
    out = torch.arange(stride * side)
    taps = (out + padding) % stride + stride * torch.arange(-(-kernel // stride))[:, None]
    places = (out + padding - taps) // stride
    return taps.clamp_max(kernel - 1), torch.where((taps < kernel) & (places >= 0) & (places < side), places, -1)


def _product(x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Gathers the pixels that each place of the output needs, and multiplies them by the weights (O, I, K, K)."""
    inputs, height, width = x.shape[-3:]
    pixels = rows[:, None, :, None] * width + columns[None, :, None, :]  # (K, K, H, W)
    nothing = height * width
    pixels = torch.where((rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :], nothing, pixels)
    padded = functional.pad(x.flatten(-2), (0, 1))  # a zero behind the last pixel
    found = padded.index_select(-1, pixels.flatten()).reshape(-1, inputs * rows.shape[0] ** 2, pixels[0, 0].numel())
    y = weight.flatten(1) @ found + bias[:, None]
    return y.reshape(*y.shape[:-1], *pixels.shape[-2:])


def softplus(x: Tensor) -> Tensor:
    """Returns log(1 + e^x), of any shape."""
    if x.dtype != torch.float64:
        return functional.softplus(x)
    return x.clamp_min(0) + (-x.abs()).exp().log1p()


def log_sigmoid(x: Tensor) -> Tensor:
    """Returns -log(1 + e^-x), of any shape."""
    return functional.logsigmoid(x) if x.dtype != torch.float64 else -softplus(-x)
