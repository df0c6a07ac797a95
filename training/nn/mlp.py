"""Fully connected networks."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    r"""Creates a fully connected network with tanh between its layers and a linear last layer.

    Weights start Glorot-uniform and biases at zero, as in the implementation the paper builds on.

    Arguments:
        sizes: The width of the input, of each hidden layer and of the output.
        dropout: The dropout probability behind each tanh; 0 leaves the layer out.

    References:
        | Understanding the difficulty of training deep feedforward neural networks (Glorot & Bengio, 2010)
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.1.1
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    while not isinstance(layers[-1], nn.Linear):
        layers.pop()
    return nn.Sequential(*layers)
