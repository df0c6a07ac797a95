"""BentoML, as its documentation has it: ``bentoml serve tests.load.peers.bentoml_scorer:ScorerService --port 8000``."""

import bentoml
import numpy as np
from numpy.typing import NDArray

from tests.load.graph import Scorer


@bentoml.service(workers=1)
class ScorerService:
    """Scores JSON."""

    def __init__(self) -> None:
        self.scorer = Scorer()

    @bentoml.api(route="/score")  # type: ignore[untyped-decorator]
    def score(self, dataset: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
        """Scores rows."""
        return self.scorer.score_vectors(vectors)
