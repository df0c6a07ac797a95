"""The application: `create_app` builds all of it, and nothing exists before."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service import page
from service.access import Access
from service.catalog import Catalog
from service.draining import drain_on_sigterm
from service.errors import ServiceError, StartError
from service.following import follow
from service.inference import Service
from service.ledger import Ledger
from service.logs import AccessLog
from service.metrics import ServiceMetrics
from service.observation import ObservationMiddleware, Observer, observation, problem_of, refusal
from service.pools import started_pool
from service.quotes import shorten
from service.routes import router
from service.runtime import Runtime
from service.settings import Settings
from service.signatures import Signers
from service.tracing import exporting
from service.v2.routes import router as protocol_router

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_PUBLICATIONS = 1.0

THREADS_ASIDE = 2
"""Threads for what would keep the event loop: loading models, and inflating bodies, one at a time."""

DESCRIPTION = """Anomaly scores from RaDOGAGA: POST rows of features, get scores and flags.

A score is an energy, -log p: higher is more anomalous, and negative values are normal."""


def ignore(error: StartError) -> None:
    """Does nothing about a failed start, beyond what was logged: the application stays alive and not ready."""


def create_app(
    settings: Settings,
    on_start_error: Callable[[StartError], None] = ignore,
    access_log: AccessLog | None = None,
    ready_first: bool = False,
) -> FastAPI:
    """Builds the application.

    It answers /health/live, /metrics and /docs at once; the models are loaded beside, and until all of them have
    replayed their examples what needs them is answered with 503.

    Arguments:
        settings: What the operator set.
        on_start_error: Called if the models can't be loaded.
        access_log: Where each request's line goes; to standard output unless given.
        ready_first: Whether it begins to listen only when it is ready, because others do meanwhile.

    Raises:
        KeysError: There is to be a file of keys, and it can't be used.
    """
    access = Access(settings.keys) if settings.keys else None
    metrics = ServiceMetrics()
    logged = settings.log_level in ("debug", "info")
    ledger = Ledger(metrics, (access_log or AccessLog()) if logged else None)
    service = Service(settings, metrics, ledger, Observer(ledger, access))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(started_pool(THREADS_ASIDE, "aside"))
        loading = asyncio.create_task(load_models(service, on_start_error))
        drain_on_sigterm(service)
        tasks = [asyncio.create_task(follow_when_loaded(service, loading))]
        tasks.append(asyncio.create_task(service.trimmer.ask_regularly()))
        if metrics.shared:
            tasks.append(asyncio.create_task(publish_regularly(service)))
        if ready_first:
            await loading
        yield
        await loading
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        service.close()

    app = FastAPIOffline(
        title="RaDOGAGA",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looking for it costs time on every request
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(protocol_router)
    app.include_router(page.router)
    if access is not None:
        page.describe_keys(app)
    app.add_middleware(ObservationMiddleware, observer=service.observer)
    app.add_exception_handler(ServiceError, answer_service_error)
    app.add_exception_handler(HTTPException, answer_http_exception)
    return app


async def load_models(service: Service, on_start_error: Callable[[StartError], None]) -> Catalog | None:
    """Loads the models in a thread, lets the service answer with them, and returns what follows their folder.

    There is nothing to be followed if the start failed.
    """
    settings = service.settings
    runtime = Runtime(settings.provider, settings.threads, settings.cuda_graphs)
    try:
        traces = await asyncio.to_thread(exporting) if settings.traces else None
        catalog = Catalog(settings.models, runtime, Signers.load(settings.signers) if settings.signers else None)
        repository = await asyncio.to_thread(catalog.open, settings.strict_start)
    except StartError as error:
        logger.error("the start failed: %s", error)
        on_start_error(error)
        return None
    except Exception as error:
        logger.exception("the start failed")
        on_start_error(StartError(f"unforeseen: {error!r}; the log has the rest"))
        return None
    for result, count in catalog.loads.items():
        service.metrics.loads.add((result,), count)
    service.metrics.follow(repository, catalog.fell_back(repository))
    service.metrics.describe(settings.max_in_flight, settings.revision)
    gc.collect()
    gc.freeze()  # what is there by now stays, and need not be looked through again
    service.ledger.traces = traces
    service.serve(repository)
    logger.info("ready", extra={"fields": {"datasets": repository.datasets(), "providers": repository.providers()}})
    return catalog


async def follow_when_loaded(service: Service, loading: asyncio.Task[Catalog | None]) -> None:
    """Follows the folder of models once they are loaded."""
    catalog = await asyncio.shield(loading)
    if catalog is not None:
        await follow(service, catalog)


async def publish_regularly(service: Service) -> None:
    """Brings this worker's metrics up to date every second, for Prometheus may ask another one for them.

    A publication that fails, on a full disk for example, is logged, and the next one is tried.
    """
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_PUBLICATIONS)
        try:
            service.publish_metrics()
        except Exception:
            logger.exception("the metrics could not be published")


async def answer_service_error(request: Request, error: Exception) -> Response:
    """Answers an error whose text may be shown."""
    if not isinstance(error, ServiceError):
        raise error
    return problem_of(error, observation(request))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answers what the router refuses: unknown paths and wrong methods."""
    if not isinstance(error, HTTPException):
        raise error
    status, path = HTTPStatus(error.status_code), shorten(request.url.path)
    kind, detail = {
        HTTPStatus.NOT_FOUND: ("not_found", f"There is nothing at {path}; /docs lists what there is."),
        HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", f"{path} does not take {request.method}."),
    }.get(status, ("http_error", str(error.detail)))
    return refusal(observation(request), status, detail, kind, dict(error.headers or {}))
