"""The graph that limits and peers run: the service's own, in a session with the service's threads.

It imports nothing but numpy and onnxruntime, for every peer's environment has these and may have nothing else.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

GRAPH = Path(__file__).parents[2] / "models" / "kddcup99" / "1" / "scorer.onnx"

FEATURES = 121


class Scorer:
    """The graph, loaded: rows in, scores out."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(GRAPH), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the scores (N,) of rows (N, M)."""
        scores: NDArray[np.float32] = self.session.run([self.output], {self.input: rows})[0]
        return scores

    def score_vectors(self, vectors: Any) -> NDArray[np.float32]:  # noqa: ANN401 - whatever JSON holds
        """Returns the scores (N,) of rows as JSON has them."""
        return self.score(np.asarray(vectors, dtype=np.float32))

    def score_bytes(self, body: bytes) -> bytes:
        """Returns the scores of row-major little-endian float32 values, as such values."""
        return self.score(np.frombuffer(body, dtype="<f4").reshape(-1, FEATURES)).tobytes()
