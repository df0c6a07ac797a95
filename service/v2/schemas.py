"""The protocol's requests and answers as OpenAPI describes them."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Error(BaseModel):
    """An error."""

    error: str = Field(description="What is wrong, naming the tensor or field and the value it had.")


class Server(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str] = Field(description="What it speaks beyond the protocol.")


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """Every model has replayed its examples."""

    ready: bool


class ModelReady(BaseModel):
    """The model has replayed its examples."""

    name: str
    ready: bool


class TensorDescription(BaseModel):
    """A tensor."""

    name: str
    datatype: str
    shape: list[int] = Field(description="Its shape, with -1 for the number of rows.")


class ModelDescription(BaseModel):
    """A model."""

    name: str
    versions: list[str] = Field(description="The versions that can be asked for, the oldest first.")
    platform: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]


class IndexEntry(BaseModel):
    """A version of a model."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"] = "READY"
    reason: str = ""


class RequestInput(BaseModel):
    """A tensor that is sent."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = Field(
        default=None, description="`binary_data_size` is the number of its bytes behind the JSON."
    )
    data: list[Any] | None = Field(default=None, description="Its numbers, flat or row by row, unless they are bytes.")


class RequestOutput(BaseModel):
    """A tensor that is asked for."""

    name: str
    parameters: dict[str, Any] | None = Field(default=None, description="`binary_data` asks for bytes behind the JSON.")


class InferRequest(BaseModel):
    """Rows to run a model on."""

    id: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="`binary_data_output` asks for bytes only.")
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = Field(default=None, description="All of the model's unless they are given.")


class AnswerOutput(BaseModel):
    """A tensor that is answered."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(default=None, description="Its values, flat, unless they are bytes.")


class InferAnswer(BaseModel):
    """What the model made of the rows."""

    id: str | None = Field(default=None, description="The request's, if it had one.")
    parameters: dict[str, Any] | None = Field(default=None, description="`threshold` is that of the scores.")
    outputs: list[AnswerOutput]
    model_name: str
    model_version: str
