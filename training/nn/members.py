"""Image layers for a stack of models: parameters and images may have a leading member axis."""

from collections.abc import Callable

import torch
from torch import Tensor


def over_members(layer: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """Applies a layer to images (N, C, H, W), or member by member to images (S, N, C, H, W) with stacked parameters.

    Arguments:
        layer: What is applied to the images and parameters of one member.
        x: The images.
        parameters: The layer's parameters, each with a leading axis S if the images have one.
    """
    if x.dim() == 4:
        return layer(x, *parameters)
    if len(x) == 1:  # views in place of copies
        return layer(x.squeeze(0), *(parameter.squeeze(0) for parameter in parameters)).unsqueeze(0)
    return torch.stack([layer(*own) for own in zip(x, *parameters, strict=True)])
