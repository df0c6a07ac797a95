"""LitServe, as its documentation has it: ``python -m tests.load.peers.litserve_scorer --port 8000``."""

import argparse
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from tests.load.graph import Scorer


class ScorerAPI(litserve.LitAPI):  # type: ignore[misc]
    """Scores JSON."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe gives it
        """Loads the graph."""
        self.scorer = Scorer()

    def decode_request(self, request: dict[str, Any]) -> NDArray[np.float32]:
        """Reads a document."""
        return np.asarray(request["vectors"], dtype=np.float32)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores rows."""
        return self.scorer.score(x)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, list[float]]:
        """Writes an answer."""
        return {"scores": output.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the graph by LitServe.")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    server = litserve.LitServer(ScorerAPI(api_path="/score"), accelerator="cpu")
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")
