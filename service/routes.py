"""The routes: each reads a request, asks the repository, calls the detector and writes the answer. HTTP stops here."""

import asyncio
import re
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
from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    NotReady,
    Overloaded,
    ResultNotFinite,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from service.metrics import ServiceMetrics
from service.observation import Observation, observation
from service.parsing import RowsRequest, parse
from service.quotes import shorten
from service.repository import ModelRepository
from service.settings import Settings

INLINE_BYTES = 16_384
"""Longer bodies are answered in a thread: their work takes longer than the way there and back."""

CHARSET = re.compile(r'charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)

UTF_8 = ("utf-8", "utf8", "us-ascii")

OPENMETRICS = "application/openmetrics-text"

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "content": {"application/problem+json": {"schema": schemas.Problem.model_json_schema()}},
        "description": text,
    }
    for status, text in {
        400: "The body is not JSON.",
        408: "The body did not arrive in time.",
        404: "No such dataset or version; the known ones are named.",
        413: "Too many bytes or rows.",
        415: "The body is not declared as application/json, or as compressed.",
        422: "A field or value is wrong; it is named.",
        500: "Something unforeseen; the log has it.",
        503: "The models are being loaded, too many requests are under way, or the service is shutting down.",
    }.items()
}

EXAMPLE = [0.774193, 0.001132, 0.137571, 0.275701, 0.295775, 0.236066]

router = APIRouter(responses={500: ERRORS[500]})


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
async def datasets(request: Request) -> schemas.DatasetList:
    """Lists what is served."""
    models = service_of(request).models()
    return schemas.DatasetList(datasets=[describe_dataset(models, name) for name in models.datasets()])


@router.get("/datasets/{name}", responses={404: ERRORS[404], 503: ERRORS[503]}, openapi_extra=schemas.in_path("name"))
async def dataset(request: Request) -> schemas.DatasetDescription:
    """Describes one dataset's served versions: features, threshold, method and metrics."""
    return describe_dataset(service_of(request).models(), request.path_params["name"])


@router.get("/health/live")
async def live() -> schemas.Alive:
    """Says that the process answers."""
    return schemas.Alive()


@router.get("/health/ready", responses={503: ERRORS[503]})
async def ready(request: Request) -> schemas.Ready:
    """Says that every model is loaded and has replayed its examples."""
    models = service_of(request).models()
    return schemas.Ready(models=len(list(models)), providers=models.providers())


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}, OPENMETRICS: {}}}})
async def metrics(request: Request) -> Response:
    """Answers Prometheus, in the format it asks for."""
    encoder, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in request.headers.get("accept", "") else "")
    return Response(encoder(service_of(request).metrics.registry), media_type=content_type)


def service_of(request: Request) -> Service:
    """Returns what the routes share."""
    service: Service = request.app.state.service
    return service


async def answer(request: Request, respond: Respond) -> Response:
    """Reads a request's body and answers what `respond` makes of it, in a thread if it is long."""
    service, seen = service_of(request), observation(request)
    service.models()
    body = await read_body(request, service.settings)
    with service.admit():
        if len(body) > INLINE_BYTES:
            content = await run_in_threadpool(respond_json, respond, service, body, seen)
        else:
            content = respond_json(respond, service, body, seen)
    return Response(content, media_type="application/json")


def respond_json(respond: Respond, service: Service, body: bytes, seen: Observation) -> bytes:
    """Returns what `respond` makes of a body, as JSON."""
    return orjson.dumps(respond(service, body, seen), option=orjson.OPT_SERIALIZE_NUMPY)


async def read_body(request: Request, settings: Settings) -> bytes:
    """Reads a JSON body.

    Raises:
        UnsupportedMediaType: It is declared as something else.
        UnsupportedEncoding: It is declared as compressed.
        BodyTooLarge: It is longer than the settings allow, by its header or by its bytes.
        BodyTooSlow: It takes longer to arrive.
    """
    content_type = request.headers.get("content-type", "")
    media_type, _, parameters = content_type.partition(";")
    charset = CHARSET.search(parameters)
    if media_type.strip().lower() != "application/json" or (charset and charset[1].lower() not in UTF_8):
        raise UnsupportedMediaType(content_type)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedEncoding(encoding)
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "").lstrip("0")
    if len(declared) > len(str(limit)) or (declared.isdecimal() and int(declared) > limit):
        raise BodyTooLarge(shorten(declared), limit)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(f"more than {limit}", limit)
    except TimeoutError:
        raise BodyTooSlow(settings.body_seconds) from None
    return bytes(body)


def score_rows(service: Service, body: bytes, seen: Observation) -> dict[str, Any]:
    """Answers /score."""
    request, detector = look_up(service, body, "vectors", seen)
    x = request.matrix(detector.manifest.width)
    result = detector.score(x)
    refuse_infinite(result.scores, request.field)
    count_rows(service, seen, detector, x)
    service.metrics.anomalies.labels(seen.dataset).inc(int(np.count_nonzero(result.anomalies)))
    threshold = detector.manifest.threshold
    return {**name_of(detector), "threshold": threshold, "scores": result.scores, "anomalies": result.anomalies}


def encode_rows(service: Service, body: bytes, seen: Observation) -> dict[str, Any]:
    """Answers /encode."""
    request, detector = look_up(service, body, "vectors", seen)
    x = request.matrix(detector.manifest.width)
    latents = refuse_infinite(detector.encode(x), request.field)
    count_rows(service, seen, detector, x)
    return {**name_of(detector), "latents": latents}


def decode_rows(service: Service, body: bytes, seen: Observation) -> dict[str, Any]:
    """Answers /decode."""
    request, detector = look_up(service, body, "latents", seen)
    z = request.matrix(detector.manifest.latent_width)
    vectors = refuse_infinite(detector.decode(z), request.field)
    seen.rows = len(z)
    return {**name_of(detector), "vectors": vectors}


def look_up(service: Service, body: bytes, field: str, seen: Observation) -> tuple[RowsRequest, Detector]:
    """Reads a body's fields and finds the model they name."""
    request = parse(body, field, service.settings.max_rows)
    detector = service.models().find(request.dataset, request.version)
    seen.dataset = request.dataset
    return request, detector


def count_rows(service: Service, seen: Observation, detector: Detector, x: Matrix) -> None:
    """Counts rows (N, M) of feature values, and those of their values that are beyond the training's."""
    seen.rows = len(x)
    outside = detector.count_outside_training_range(x)
    service.metrics.outside_training_range.labels(seen.dataset).inc(outside)


def refuse_infinite(result: NDArray[np.floating], field: str) -> NDArray[np.floating]:
    """Returns a result (N,) or (N, *) if all of it is finite.

    Raises:
        ResultNotFinite: A row's result is not; the row is named.
    """
    finite = np.isfinite(result).reshape(len(result), -1).all(axis=1)
    if not finite.all():
        raise ResultNotFinite(field, int(np.argmin(finite)))
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
