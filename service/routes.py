"""The routes: each reads a request, asks the repository, calls the detector and writes the answer. HTTP stops here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from prometheus_client.exposition import choose_encoder

from service import schemas
from service.detector import Detector, Matrix
from service.errors import BodyTooLarge, NotReady, Overloaded, ScoreNotFinite, UnsupportedMediaType
from service.metrics import ServiceMetrics
from service.observation import Observation, observation
from service.parsing import parse
from service.repository import ModelRepository
from service.settings import Settings

INLINE_BYTES = 262_144
"""Longer bodies are answered in a thread, so that others need not wait for them."""

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "content": {"application/problem+json": {"schema": schemas.Problem.model_json_schema()}},
        "description": text,
    }
    for status, text in {
        400: "The body is not JSON.",
        404: "No such dataset or version; the known ones are named.",
        413: "Too many bytes or rows.",
        415: "The body is not declared as application/json.",
        422: "A field or value is wrong; it is named.",
        503: "The models are still being loaded, or as many requests as are taken at once are under way.",
    }.items()
}

EXAMPLE = [0.774193, 0.001132, 0.137571, 0.275701, 0.295775, 0.236066]

router = APIRouter()


@dataclass
class Service:
    """What the routes share: one per application.

    Attributes:
        settings: What the operator set.
        metrics: What Prometheus scrapes.
        repository: The models, once they are loaded.
        under_way: The number of requests with rows that are being answered.
    """

    settings: Settings
    metrics: ServiceMetrics
    repository: ModelRepository | None = None
    under_way: int = 0

    def models(self) -> ModelRepository:
        """Returns the models.

        Raises:
            NotReady: They are not loaded yet.
        """
        if self.repository is None:
            raise NotReady
        return self.repository

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a request with rows while it is under way.

        Raises:
            NotReady: The models are not loaded yet.
            Overloaded: As many as the settings allow are under way.
        """
        self.models()
        if self.under_way >= self.settings.max_in_flight:
            raise Overloaded(self.settings.max_in_flight)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


Respond = Callable[[Service, bytes, Observation], dict[str, Any]]


@router.post(
    "/score",
    response_model=schemas.ScoreAnswer,
    responses=ERRORS,
    openapi_extra=schemas.body_of(schemas.RowsRequest, {"dataset": "thyroid", "vectors": [EXAMPLE]}),
)
async def score(request: Request) -> Response:
    """Scores rows and says of each whether it is an anomaly: an energy, -log p, of the threshold or more."""
    return await answer(request, score_rows)


@router.post(
    "/encode",
    response_model=schemas.EncodeAnswer,
    responses=ERRORS,
    openapi_extra=schemas.body_of(schemas.RowsRequest, {"dataset": "thyroid", "vectors": [EXAMPLE]}),
)
async def encode(request: Request) -> Response:
    """Encodes rows into latents."""
    return await answer(request, encode_rows)


@router.post(
    "/decode",
    response_model=schemas.DecodeAnswer,
    responses=ERRORS,
    openapi_extra=schemas.body_of(schemas.LatentsRequest, {"dataset": "thyroid", "latents": [[0.0] * 6]}),
)
async def decode(request: Request) -> Response:
    """Decodes latents into rows of raw feature values."""
    return await answer(request, decode_rows)


@router.get("/datasets", responses={503: ERRORS[503]})
def datasets(request: Request) -> schemas.DatasetList:
    """Lists what is served."""
    models = service_of(request).models()
    return schemas.DatasetList(datasets=[describe_dataset(models, name) for name in models.datasets()])


@router.get("/datasets/{name}", responses={404: ERRORS[404], 503: ERRORS[503]})
def dataset(request: Request, name: str) -> schemas.DatasetDescription:
    """Describes one dataset's served versions: features, threshold, method and metrics."""
    return describe_dataset(service_of(request).models(), name)


@router.get("/health/live")
async def live() -> schemas.Alive:
    """Says that the process answers."""
    return schemas.Alive()


@router.get("/health/ready", responses={503: ERRORS[503]})
async def ready(request: Request) -> schemas.Ready:
    """Says that every model is loaded and has replayed its examples."""
    models = service_of(request).models()
    return schemas.Ready(models=len(list(models)), providers=models.providers())


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Answers Prometheus."""
    encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(service_of(request).metrics.registry), media_type=content_type)


def service_of(request: Request) -> Service:
    """Returns what the routes share."""
    service: Service = request.app.state.service
    return service


async def answer(request: Request, respond: Respond) -> Response:
    """Reads a request's body and answers what `respond` makes of it, in a thread if it is long."""
    service, seen = service_of(request), observation(request)
    with service.admit():
        body = await read_body(request, service.settings.max_body_bytes)
        if len(body) > INLINE_BYTES:
            content = await run_in_threadpool(respond_json, respond, service, body, seen)
        else:
            content = respond_json(respond, service, body, seen)
    return Response(content, media_type="application/json")


def respond_json(respond: Respond, service: Service, body: bytes, seen: Observation) -> bytes:
    """Returns what `respond` makes of a body, as JSON."""
    return orjson.dumps(respond(service, body, seen), option=orjson.OPT_SERIALIZE_NUMPY)


async def read_body(request: Request, limit: int) -> bytes:
    """Reads a JSON body of at most `limit` bytes.

    Raises:
        UnsupportedMediaType: It is declared as something else.
        BodyTooLarge: It is longer, by its header or by its bytes.
    """
    content_type = request.headers.get("content-type")
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(content_type)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(declared, limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(f"more than {limit}", limit)
    return bytes(body)


def score_rows(service: Service, body: bytes, seen: Observation) -> dict[str, Any]:
    """Answers /score."""
    detector, x = read_rows(service, body, "vectors", seen)
    result = detector.score(x)
    refuse_infinite(result.scores, "vectors")
    service.metrics.anomalies.labels(seen.dataset).inc(int(np.count_nonzero(result.anomalies)))
    threshold = detector.manifest.threshold
    return {**name_of(detector), "threshold": threshold, "scores": result.scores, "anomalies": result.anomalies}


def encode_rows(service: Service, body: bytes, seen: Observation) -> dict[str, Any]:
    """Answers /encode."""
    detector, x = read_rows(service, body, "vectors", seen)
    return {**name_of(detector), "latents": refuse_infinite(detector.encode(x), "vectors")}


def decode_rows(service: Service, body: bytes, seen: Observation) -> dict[str, Any]:
    """Answers /decode."""
    detector, z = read_rows(service, body, "latents", seen)
    return {**name_of(detector), "vectors": refuse_infinite(detector.decode(z), "latents")}


def read_rows(service: Service, body: bytes, field: str, seen: Observation) -> tuple[Detector, Matrix]:
    """Parses a body and looks its model up."""
    request = parse(body, field, service.settings.max_rows)
    detector = service.models().find(request.dataset, request.version)
    seen.dataset = request.dataset
    if field == "latents":
        rows = request.matrix(detector.manifest.latent_width)
    else:
        rows = request.matrix(detector.manifest.width)
        outside = detector.count_outside_training_range(rows)
        service.metrics.outside_training_range.labels(seen.dataset).inc(outside)
    seen.rows = len(rows)
    return detector, rows


def refuse_infinite(result: NDArray[np.floating], field: str) -> NDArray[np.floating]:
    """Returns a result (N,) or (N, *) if all of it is finite.

    Raises:
        ScoreNotFinite: A row's result is not; the row is named.
    """
    finite = np.isfinite(result).reshape(len(result), -1).all(axis=1)
    if not finite.all():
        raise ScoreNotFinite(field, int(np.argmin(finite)))
    return result


def name_of(detector: Detector) -> dict[str, Any]:
    """Returns the fields that every answer begins with."""
    return {"dataset": detector.manifest.dataset, "version": detector.manifest.version}


def describe_dataset(models: ModelRepository, name: str) -> schemas.DatasetDescription:
    """Describes a dataset's versions.

    Raises:
        DatasetNotFound: No such dataset is served.
    """
    versions = models.versions(name)
    newest = max(versions)
    return schemas.DatasetDescription(
        dataset=name,
        newest=newest,
        versions=[describe_model(versions[version], version == newest) for version in sorted(versions)],
    )


def describe_model(detector: Detector, newest: bool) -> schemas.ModelDescription:
    """Describes one version of a dataset's model."""
    manifest = detector.manifest
    return schemas.ModelDescription(
        dataset=manifest.dataset,
        version=manifest.version,
        method=manifest.method,
        newest=newest,
        provider=detector.provider,
        columns=manifest.width,
        latent_features=manifest.latent_width,
        features=manifest.features,
        threshold=manifest.threshold,
        calibration=manifest.calibration,
        metrics=manifest.provenance.metrics,
    )
