"""mosec, as its documentation has it: ``python -m tests.load.peers.mosec_scorer orjson --port 8000``.

A worker overrides how bodies are read and written, and scores in a process beside the server, which is Rust.
"""

import sys
from typing import Any

import numpy as np
import orjson
from mosec import Server, ValidationError, Worker

from tests.load.graph import Scorer

MAX_BATCH = 32
MAX_WAIT_MILLISECONDS = 1


class Json(Worker):  # type: ignore[misc]
    """Scores JSON, read and written by orjson."""

    def __init__(self) -> None:
        super().__init__()
        self.scorer = Scorer()

    def deserialize(self, data: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Reads a body."""
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise ValidationError(str(error)) from error

    def serialize(self, data: Any) -> bytes:  # noqa: ANN401 - what `forward` returned
        """Writes an answer."""
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data: Any) -> Any:  # noqa: ANN401 - one document, or several with batching
        """Scores the rows of a document."""
        return {"scores": self.scorer.score_vectors(data["vectors"])}


class BatchedJson(Json):
    """The same for the documents of several requests at once."""

    def forward(self, data: Any) -> Any:  # noqa: ANN401
        """Scores the rows of all documents in one run."""
        matrices = [np.asarray(document["vectors"], dtype=np.float32) for document in data]
        scores = self.scorer.score(np.concatenate(matrices))
        ends = np.cumsum([len(matrix) for matrix in matrices])
        return [{"scores": part} for part in np.split(scores, ends[:-1])]


class Raw(Worker):  # type: ignore[misc]
    """Scores float32 values as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.scorer = Scorer()

    def deserialize(self, data: bytes) -> bytes:
        """Leaves a body as it is."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Leaves an answer as it is."""
        return data

    def forward(self, data: bytes) -> bytes:
        """Scores the rows."""
        return self.scorer.score_bytes(data)


if __name__ == "__main__":
    server = Server()
    match sys.argv[1]:
        case "orjson":
            server.append_worker(Json, route="/score")
        case "batching":
            server.append_worker(
                BatchedJson, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MILLISECONDS, route="/score"
            )
        case "raw":
            server.append_worker(Raw, route="/score")
        case other:
            sys.exit(f"{other} is none of orjson, batching and raw")
    server.run()
