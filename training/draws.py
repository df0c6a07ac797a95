"""Random numbers for models that are trained together: each member of a stack draws from a generator of its own."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BITS = 16
"""The bits of a number: a step of 1.5e-5, and four numbers from each word of the generator."""


class Draws:
    """Creates generators, so that a member draws the same numbers alone and in any stack.

    They are numpy's SFC64, which draws a number in a sixth of the time that torch's generator takes on a CPU.

    Arguments:
        seeds: A seed for each of the S members.
    """

    kind = "SFC64"

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [np.random.SFC64(seed) for seed in seeds]

    def uniform(self, rows: int, width: int) -> Tensor:
        """Draws numbers of shape (S, rows, width), uniform on (0, 1) and symmetric about 1/2; rows lie last in memory.

        Each is the middle of one of the 2^16 equal parts of the interval.
        """
        words = -(-rows * width * BITS // 64)
        raw = np.stack([generator.random_raw(words) for generator in self.generators]).view(np.int16)
        drawn = torch.from_numpy(raw)[:, : rows * width].view(-1, width, rows)
        return drawn.mul(2.0**-BITS).add_(0.5 + 2.0 ** -(BITS + 1)).mT

    def state(self) -> list[list[int]]:
        """Returns what `restore` takes to go on from here."""
        return [generator.state["state"]["state"].tolist() for generator in self.generators]

    def restore(self, state: list[list[int]]) -> None:
        """Goes back to where `state` was taken."""
        for generator, own in zip(self.generators, state, strict=True):
            words = np.array(own, dtype=np.uint64)
            generator.state = {"bit_generator": self.kind, "state": {"state": words}, "has_uint32": 0, "uinteger": 0}
