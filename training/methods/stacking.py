"""Models of equal shape, stacked along a leading member axis so that they are trained and evaluated together."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from training.methods.base import Method

M = TypeVar("M", bound=Method)


def stack(methods: Sequence[M]) -> M:
    """Returns one model whose parameters and buffers have a leading axis over `methods`, (S, ...).

    What it computes has that axis too: losses of rows (S, N, M) are of shape (S, N), scores of rows (N, M) are (S, N).
    """
    stacked = copy.deepcopy(methods[0])
    parameters, buffers = torch.func.stack_module_state(list(methods))
    for name, value in parameters.items():
        set_at(stacked, name, nn.Parameter(value.detach()))
    for name, value in buffers.items():
        set_at(stacked, name, value)
    return stacked


def set_at(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Replaces a parameter or buffer by its dotted name."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, value)


@torch.no_grad()
def unstack(stacked: M, methods: Sequence[M]) -> None:
    """Copies a stack's parameters back into the models it was made from."""
    for name, values in stacked.named_parameters():
        for method, value in zip(methods, values, strict=True):
            method.get_parameter(name).copy_(value)
