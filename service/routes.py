"""The routes: each reads a request, asks the repository, calls the detector and writes the answer. HTTP stops here."""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from service import schemas
from service.detector import Detector
from service.exchange import DECODE, ENCODE, SCORE, Operation
from service.inference import Service
from service.observation import observation
from service.repository import ModelRepository, Refusal

OPENMETRICS = "application/openmetrics-text"

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "content": {"application/problem+json": {"schema": schemas.Problem.model_json_schema()}},
        "description": text,
    }
    for status, text in {
        400: "The body is not what it is declared as.",
        404: "No such dataset or version; the known ones are named.",
        406: "No format that answers are written in is accepted.",
        408: "The body did not arrive in time.",
        413: "Too many bytes or rows.",
        415: "The body is declared as something that isn't read, or as compressed in another way.",
        422: "A field or value is wrong; it is named.",
        500: "Something unforeseen; the log has it.",
        503: "The models are being loaded, too many requests are under way, or the service is shutting down.",
        504: "The time that the request's header allows was over before the work began.",
    }.items()
}

EXAMPLE = [0.774193, 0.001132, 0.137571, 0.275701, 0.295775, 0.236066]

EXAMPLES: dict[str, dict[str, Any]] = {
    "vectors": {"dataset": "thyroid", "vectors": [EXAMPLE]},
    "records": {
        "dataset": "thyroid",
        "records": [dict(zip(("age", "TSH", "T3", "TT4", "T4U", "FTI"), EXAMPLE, strict=True))],
    },
}

LATENTS: dict[str, dict[str, Any]] = {
    "vectors": {"dataset": "thyroid", "latents": [[0.0] * 6]},
    "records": {"dataset": "thyroid", "latents": [[0.0] * 6], "answer": "records"},
}

router = APIRouter(responses={500: ERRORS[500]})


@router.post(
    "/score",
    responses=schemas.answers_in(schemas.ScoreAnswer) | ERRORS,
    openapi_extra=schemas.body_of(schemas.RowsRequest, EXAMPLES),
)
async def score(request: Request) -> Response:
    """Scores rows and says of each whether it is an anomaly: an energy, -log p, of the threshold or more.

    Rows are vectors in the order of the dataset's features, or records of raw values by their names.
    """
    return await answer(request, SCORE)


@router.post(
    "/encode",
    responses=schemas.answers_in(schemas.EncodeAnswer) | ERRORS,
    openapi_extra=schemas.body_of(schemas.RowsRequest, EXAMPLES),
)
async def encode(request: Request) -> Response:
    """Encodes rows, which are vectors or records, into latents."""
    return await answer(request, ENCODE)


@router.post(
    "/decode",
    responses=schemas.answers_in(schemas.DecodeAnswer) | ERRORS,
    openapi_extra=schemas.body_of(schemas.LatentsRequest, LATENTS),
)
async def decode(request: Request) -> Response:
    """Decodes latents into rows of raw feature values, or into records if `answer` says so.

    In a record a category is the one whose column is the largest, a boolean is true from 0.5 on, what is more likely
    missing than not is null, and timestamps are left out.
    """
    return await answer(request, DECODE)


@router.get("/datasets", response_model_exclude_unset=True, responses={503: ERRORS[503]})
async def datasets(request: Request) -> schemas.DatasetList:
    """Lists what is served."""
    models = service_of(request).models()
    return schemas.DatasetList(
        datasets=[describe_dataset(models, name) for name in models.datasets()],
        refused=[describe_refusal(refusal) for refusal in models.refusals],
    )


@router.get(
    "/datasets/{name}",
    response_model_exclude_unset=True,
    responses={404: ERRORS[404], 503: ERRORS[503]},
    openapi_extra=schemas.in_path("name"),
)
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
    models = service_of(request).ready()
    return schemas.Ready(models=len(list(models)), providers=models.providers(), refused=len(models.refusals))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}, OPENMETRICS: {}}}})
async def metrics(request: Request) -> Response:
    """Answers Prometheus, in the format it asks for."""
    service = service_of(request)
    service.publish_metrics()
    encoder, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in request.headers.get("accept", "") else "")
    return Response(encoder(service.metrics.collected()), media_type=content_type)


def service_of(request: Request) -> Service:
    """Returns what the routes share."""
    service: Service = request.app.state.service
    return service


async def answer(request: Request, operation: Operation) -> Response:
    """Answers a request with rows."""
    scope = request.scope
    return await service_of(request).answer(
        operation, dict(scope["headers"]), scope["query_string"], request.receive, observation(request)
    )


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
        versions=[describe_model(models, versions[version], version == newest) for version in sorted(versions)],
        refused=[describe_refusal(refusal) for refusal in models.refusals if refusal.dataset == name],
    )


def describe_refusal(refusal: Refusal) -> schemas.Refused:
    """Describes something that is not served."""
    return schemas.Refused(entry=str(refusal), reason=refusal.reason, since=refusal.since)


def describe_model(models: ModelRepository, detector: Detector, newest: bool) -> schemas.ModelDescription:
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
        latents=manifest.latents,
        image=manifest.image,
        features=manifest.features,
        ignored=manifest.ignored,
        p_values=detector.p_values is not None,
        threshold=detector.threshold,
        calibrated_threshold=manifest.threshold,
        threshold_changes=[
            schemas.ThresholdChange(threshold=change.threshold, why=change.why, by=change.by, at=change.at)
            for change in models.history(detector)
        ],
        calibration=manifest.calibration,
        metrics=manifest.provenance.metrics,
    )


OPERATIONS = {"/score": SCORE, "/encode": ENCODE, "/decode": DECODE}
"""What is done with rows that are posted, by path."""
