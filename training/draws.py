"""Random numbers for models that are trained together: each member of a stack draws from a generator of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Creates generators, so that a member draws the same numbers alone and in any stack.

    Arguments:
        seeds: A seed for each of the S members.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, rows: int, width: int) -> Tensor:
        """Draws numbers of shape (S, rows, width), uniform on [0, 1)."""
        drawn = torch.empty(len(self.generators), rows, width)
        for generator, own in zip(self.generators, drawn, strict=True):
            own.uniform_(generator=generator)
        return drawn

    def state(self) -> list[Tensor]:
        """Returns what `restore` takes to go on from here."""
        return [generator.get_state() for generator in self.generators]

    def restore(self, state: list[Tensor]) -> None:
        """Goes back to where `state` was taken."""
        for generator, own in zip(self.generators, state, strict=True):
            generator.set_state(own)
