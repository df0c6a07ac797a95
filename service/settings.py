"""Settings, read from environment variables RADOGAGA_*."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]


class Settings(BaseSettings):
    """What an operator can set; README has the same list. A variable that is empty counts as not set."""

    model_config = SettingsConfigDict(env_prefix="RADOGAGA_", env_ignore_empty=True, frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 takes a free one."
    )
    models: Path = Field(default=Path("models"), description="Folder with the models, `<dataset>/<version>/`.")
    strict_start: bool = Field(
        default=False,
        description="Whether the start fails if any version is refused; otherwise the others are served.",
    )
    poll_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        default=0.5,
        description="Time between two looks for new, changed or removed models where file watching misses them;"
        " 0 looks on SIGHUP only.",
    )
    signers: Path | None = Field(
        default=None,
        description="File with the public keys that models have to be signed by, one `ssh-ed25519 ...` per line; needs"
        " the extra `[signatures]`.",
    )
    provider: Provider = Field(
        default="auto",
        description="Execution provider: `auto` takes a GPU if there is one, `cpu` never;"
        " with `cuda` or `tensorrt` the start fails unless the sessions really get it.",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="Threads inside one inference; 1 gives the most rows per core for models this small."
    )
    cuda_graphs: bool = Field(
        default=False,
        description="Whether single rows run as recorded CUDA graphs; needs RADOGAGA_PROVIDER=`cuda`.",
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Processes that serve, each with all models; one per core is as many as pay."
    )
    max_rows: Annotated[int, Field(ge=1)] = Field(default=16384, description="Rows taken per request.")
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(
        default=33_554_432, description="Bytes read of a request's body."
    )
    body_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=30.0, description="Time that a request's body has to arrive."
    )
    max_in_flight: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Requests with rows that are answered at once; more get 503 and are asked to wait."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=1000,
        description="Connections that a worker has open; on more only health checks and metrics are answered.",
    )
    header_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=10.0, description="Time that a request's header has to arrive."
    )
    write_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=30.0, description="Time that a client has to take its answer."
    )
    max_batch_rows: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=1,
        description="Rows of several requests that go through the graph together; 1 switches micro-batching off.",
    )
    max_wait_us: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="Microseconds that several requests may wait for more; a row alone doesn't wait."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged; `warning` switches the access log off."
    )
    traces: bool = Field(
        default=False,
        description="Whether requests are traced by OpenTelemetry; needs the extra `[traces]`, and obeys OTEL_*.",
    )
    keys: Path | None = Field(
        default=None,
        description="File of the API keys that requests need, see `python -m service key`; unless set, none is needed.",
    )
    tls_certificate: Path | None = Field(
        default=None, description="File with the certificate chain (PEM) for HTTPS; needs RADOGAGA_TLS_KEY."
    )
    tls_key: Path | None = Field(
        default=None, description="File with the certificate's private key (PEM), not encrypted."
    )
    revision: str = Field(
        default="unknown",
        description="Commit that the service was built from, for `radogaga_build_info`; images have it.",
    )
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="Time between SIGTERM, from when on the service is not ready, and its last connection."
    )
    shutdown_seconds: Annotated[int, Field(ge=0)] = Field(
        default=30, description="Time that requests under way then have to finish."
    )
