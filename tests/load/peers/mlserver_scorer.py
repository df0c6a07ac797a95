"""MLServer, as its documentation has it: a custom runtime, which `mlserver start` finds by its import path."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from tests.load.graph import Scorer


class ScorerRuntime(MLModel):  # type: ignore[misc]
    """Scores the first input of a V2 request."""

    async def load(self) -> bool:
        """Loads the graph."""
        self.scorer = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Scores rows."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        scores = self.scorer.score_vectors(rows)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
