"""The protocol's paths."""

from dataclasses import dataclass
from importlib.metadata import version as version_of_package
from typing import Any

from fastapi import APIRouter, Request, Response

from service.detector import Detector
from service.exchange import Operation, Reply, Work, conclude
from service.formats import Body
from service.graphs import Matrix
from service.ledger import Observation
from service.observation import PROTOCOL, observation
from service.routes import EXAMPLE, service_of
from service.schemas import in_path, schema_of
from service.v2 import schemas
from service.v2.bodies import JSON_BYTES, Asked, read, write
from service.v2.models import Model, Tensor, all_models, find_model, versions_of

EXTENSIONS = ["binary_tensor_data"]

PLATFORM = "onnxruntime_onnx"

JSON_BYTES_HEADER = JSON_BYTES.lower().encode()

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": text}
    for status, text in {
        400: "A tensor, field or value is wrong; it is named.",
        404: "No such model or version; the known ones are named.",
        408: "The body did not arrive in time.",
        413: "Too many bytes or rows.",
        415: "The body is compressed in a way that isn't read here.",
        500: "Something unforeseen; the log has it.",
        503: "The models are being loaded, too many requests are under way, or the service is shutting down.",
        504: "The time that the request's header allows was over before the work began.",
    }.items()
}

OF_MODEL: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (404, 503)}

NEWEST = "/models/{model}"
VERSION = "/models/{model}/versions/{version}"

IN_NEWEST = in_path("model")
IN_VERSION = {"parameters": [*in_path("model")["parameters"], *in_path("version")["parameters"]]}

EXAMPLE_REQUEST = {"inputs": [{"name": "vectors", "datatype": "FP32", "shape": [1, len(EXAMPLE)], "data": EXAMPLE}]}

INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schema_of(schemas.InferRequest), "example": EXAMPLE_REQUEST},
        },
    }
}
"""The body as OpenAPI describes it; `service.v2.bodies` reads it."""

router = APIRouter(prefix=PROTOCOL, tags=["Open Inference Protocol"], responses={500: ERRORS[500]})


@router.get("")
async def server() -> schemas.Server:
    """Describes the server."""
    return schemas.Server(name="radogaga", version=version_of_package("radogaga"), extensions=EXTENSIONS)


@router.get("/health/live")
async def live() -> schemas.Live:
    """Says that the process answers."""
    return schemas.Live(live=True)


@router.get("/health/ready", responses={503: ERRORS[503]})
async def ready(request: Request) -> schemas.Ready:
    """Says that every model is loaded and has replayed its examples."""
    service_of(request).ready()
    return schemas.Ready(ready=True)


@router.post("/repository/index", responses={503: ERRORS[503]})
async def index(request: Request) -> list[schemas.IndexEntry]:
    """Lists every version of every model, and what else is in the folder with the reason why it is not served."""
    models = service_of(request).models()
    ready = [schemas.IndexEntry(name=model.name, version=model.version) for model in all_models(models)]
    return ready + [
        schemas.IndexEntry(name=refusal.dataset, version=refusal.entry, state="UNAVAILABLE", reason=refusal.reason)
        for refusal in models.refusals
    ]


@router.get(NEWEST, responses=OF_MODEL, openapi_extra=IN_NEWEST)
@router.get(VERSION, responses=OF_MODEL, openapi_extra=IN_VERSION)
async def metadata(request: Request) -> schemas.ModelDescription:
    """Describes a model's tensors, of the newest version unless another is named, and lists its versions."""
    model = model_of(request)
    return schemas.ModelDescription(
        name=model.name,
        versions=versions_of(service_of(request).models(), model.name),
        platform=PLATFORM,
        inputs=[describe(model.input)],
        outputs=[describe(tensor) for tensor in model.outputs],
    )


@router.get(f"{NEWEST}/ready", responses=OF_MODEL, openapi_extra=IN_NEWEST)
@router.get(f"{VERSION}/ready", responses=OF_MODEL, openapi_extra=IN_VERSION)
async def model_ready(request: Request) -> schemas.ModelReady:
    """Says that a model is loaded and has replayed its examples."""
    return schemas.ModelReady(name=model_of(request).name, ready=True)


@router.post(
    f"{NEWEST}/infer", response_model=schemas.InferAnswer, responses=ERRORS, openapi_extra={**IN_NEWEST, **INFER_BODY}
)
@router.post(
    f"{VERSION}/infer", response_model=schemas.InferAnswer, responses=ERRORS, openapi_extra={**IN_VERSION, **INFER_BODY}
)
async def infer(request: Request) -> Response:
    """Scores, encodes or decodes rows, as the model does.

    Tensors are numbers in the JSON, or bytes behind it, both ways: see the extension `binary_tensor_data`.
    """
    service, seen = service_of(request), observation(request)
    model = model_of(request)
    seen.dataset = model.detector.manifest.dataset
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    work = Inference(model.operation, model, headers.get(JSON_BYTES_HEADER), service.settings.max_rows, seen)
    return await service.carry_out(work, headers, request.receive)


@dataclass(slots=True)
class Inference(Work):
    """An inference request, from its body to its answer.

    Attributes:
        operation: What to do with the rows.
        model: Who is asked.
        json_bytes: What the header says of how much of the body is JSON.
        max_rows: The number of rows one request may carry.
        seen: What is known about the request, to be added to.
        asked: What it asks for, once its body was read.
    """

    operation: Operation
    model: Model
    json_bytes: bytes | None
    max_rows: int
    seen: Observation
    asked: Asked | None = None

    def read(self, body: Body) -> tuple[Detector, Matrix]:
        """Reads a body's rows."""
        self.asked = read(body, self.json_bytes, self.model, self.max_rows)
        return self.model.detector, self.asked.rows

    def write(self, detector: Detector, rows: Matrix, results: Matrix) -> Response:
        """Writes the outputs that were asked for."""
        if self.asked is None:
            raise RuntimeError("an answer is written before its request was read")
        answer = conclude(self.operation, detector, rows, results, self.seen, self.operation.field)
        content, json_bytes = write(self.model, self.asked, answer)
        headers = [(b"content-length", b"%d" % len(content))]
        if json_bytes is None:
            return Reply(content, [*headers, (b"content-type", b"application/json")])
        headers += [(b"content-type", b"application/octet-stream"), (JSON_BYTES_HEADER, b"%d" % json_bytes)]
        return Reply(content, headers)


def model_of(request: Request) -> Model:
    """Returns the model that a path names.

    Raises:
        NotReady: The models are not loaded yet.
        ModelNotFound: No model has that name.
        VersionNotFound: It has no such version.
    """
    path: dict[str, str] = request.path_params
    return find_model(service_of(request).models(), path["model"], path.get("version"))


def describe(tensor: Tensor) -> schemas.TensorDescription:
    """Describes a tensor."""
    return schemas.TensorDescription(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))
