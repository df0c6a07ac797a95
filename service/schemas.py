"""The requests and answers as OpenAPI describes them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.json_schema import SkipJsonSchema

from service.formats import FORMATS
from service.manifest import Calibration, Evaluation, Feature, Image, LatentStatistics

Row = list[float]

Record = dict[str, float | bool | str | None]


class Request(BaseModel):
    """What every request names."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    dataset: str = Field(description="The dataset, as GET /datasets lists it.")
    version: int | None = Field(default=None, description="The version; the newest unless it is given.")


class VectorsRequest(Request):
    """Rows to score or encode."""

    vectors: Annotated[list[Row], Field(min_length=1)] = Field(
        description="Rows of raw feature values, in the order of the dataset's features."
    )


class RecordsRequest(Request):
    """Records to score or encode."""

    records: Annotated[list[Record], Field(min_length=1)] = Field(
        description="Rows of raw values by the names of the dataset's features: numbers; true, false, 1 or 0;"
        " categories as strings, or as numbers where all of them are; times in ISO 8601, in UTC unless they have an"
        " offset; and null where the feature takes it, which a column that is left out counts as. The dataset's"
        " ignored columns may be there, too."
    )


class RowsRequest(RootModel[VectorsRequest | RecordsRequest]):
    """Rows to score or encode, as vectors or as records."""


class LatentsRequest(Request):
    """Latents to decode."""

    latents: Annotated[list[Row], Field(min_length=1)] = Field(description="Latents, as /encode answers them.")
    answer: Literal["vectors", "records"] = Field(
        default="vectors", description="What to answer; records are answered in JSON only."
    )


class Answer(BaseModel):
    """What every answer names."""

    dataset: str
    version: int


class ScoreAnswer(Answer):
    """Scores and decisions, one per row."""

    threshold: float = Field(description="The score from which a row is called an anomaly.")
    scores: list[float] = Field(description="Energies, -log p: higher is more anomalous, negative values are normal.")
    anomalies: list[bool] = Field(description="Whether score >= threshold.")
    p_values: list[float] | SkipJsonSchema[None] = Field(
        default=None,
        description="Conformal p-values, if the model has them: the share of normal rows that score as high or higher.",
    )


class EncodeAnswer(Answer):
    """Latents, one per row."""

    latents: list[Row]


class DecodedVectors(Answer):
    """Rows of raw feature values, one per latent."""

    vectors: list[Row]


class DecodedRecords(Answer):
    """Records, one per latent, without timestamps, which can't be had back."""

    records: list[Record]


class DecodeAnswer(RootModel[DecodedVectors | DecodedRecords]):
    """Rows of raw feature values, one per latent, as the request asks for them."""


class ThresholdChange(BaseModel):
    """A threshold that was changed after training."""

    threshold: float | None = Field(
        description="The score from which a row was called an anomaly; null: as calibrated."
    )
    why: str
    by: str
    at: datetime


class ModelDescription(BaseModel):
    """A served version of a dataset's model."""

    dataset: str
    version: int
    method: str
    newest: bool = Field(description="Whether this version answers requests that name none.")
    provider: str = Field(description="The execution provider its sessions really got.")
    columns: int = Field(description="The number of values in a row.")
    latent_features: int = Field(description="The number of values in a latent.")
    latents: LatentStatistics | None = Field(
        description="Mean and standard deviation of each latent feature over the fitted rows; null if not known."
    )
    image: Image | None = Field(description="The shape of a row that is an image, channel by channel and row by row.")
    features: list[Feature]
    ignored: list[str] = Field(description="Columns that records and tables may have, and that are not used.")
    p_values: bool = Field(description="Whether /score answers p-values.")
    threshold: float = Field(description="The score from which a row is called an anomaly.")
    calibrated_threshold: float = Field(description="The threshold that was chosen in training.")
    threshold_changes: list[ThresholdChange] = Field(description="What was changed since, the oldest first.")
    calibration: Calibration
    metrics: Evaluation | None = Field(description="What it was worth in tests; null if there were no labels.")


class Refused(BaseModel):
    """Something in the folder of models that is not served as it is."""

    entry: str = Field(description="The version's folder or the file, within the folder of models.")
    reason: str = Field(description="What is wrong, naming the file, the field and the value it had.")
    since: datetime


class DatasetDescription(BaseModel):
    """A dataset with its served versions, oldest first."""

    dataset: str
    newest: int
    versions: list[ModelDescription]
    refused: list[Refused] = Field(description="What is in the dataset's folder and not served as it is.")


class DatasetList(BaseModel):
    """All datasets, in alphabetical order."""

    datasets: list[DatasetDescription]
    refused: list[Refused] = Field(description="All that is in the folder of models and not served as it is.")


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Every model has replayed its examples."""

    status: Literal["ready"] = "ready"
    models: int = Field(description="The number of model folders served.")
    providers: list[str] = Field(description="The execution providers the sessions really got.")
    refused: int = Field(description="The number of versions and files that are not served as they are.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(description="The HTTP status in words.")
    status: int
    detail: str = Field(description="What is wrong, naming the field and the value it had.")
    kind: str = Field(description="A word for machines, stable across releases.")
    request_id: str = Field(description="The id under which the service's log has this request.")


IN_PATH = {"name": "thyroid", "model": "thyroid", "version": "1"}
"""Examples of the parts of paths."""


def in_path(name: str) -> dict[str, Any]:
    """Describes a part of the path for OpenAPI; FastAPI's own way would promise an error of its own beside."""
    schema, example = {"type": "string"}, IN_PATH[name]
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": schema, "example": example}]}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Describes a model in one piece: references would be looked for where OpenAPI's document has nothing."""
    schema = model.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        if isinstance(part, list):
            return [resolved(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].rpartition("/")[2]])
        return {name: resolved(entry) for name, entry in part.items()}

    found: dict[str, Any] = resolved(schema)
    return found


def body_of(model: type[BaseModel], examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Describes a request's body for OpenAPI, with examples by name; it is read by `service.formats`."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = dict.fromkeys(FORMATS, binary) | {
        "application/json": {
            "schema": schema_of(model),
            "examples": {name: {"value": example} for name, example in examples.items()},
        },
        "text/csv": {"schema": {"type": "string"}},
    }
    text = "which model rows are for that are not JSON"
    parameters = [
        {"name": name, "in": "query", "description": f"The {name}, {text}.", "schema": {"type": kind}}
        for name, kind in (("dataset", "string"), ("version", "integer"))
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


def answers_in(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Describes the formats of an answer for OpenAPI."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"model": model, "content": {name: binary for name in FORMATS if name != "application/json"}}}
