# Fits models and exports them onto a mounted folder. Build it from the project's folder:
#   docker build --file docker/training.Dockerfile --tag radogaga:training .
# and run it as yourself, so that what it writes is yours:
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD/models:/work/models" --volume "$PWD/data:/data" radogaga:training fit thyroid
# PyPI's PyTorch brings CUDA; --build-arg TORCH_INDEX=... with the address of PyTorch's index of builds for CPUs makes a much
# smaller image.

FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/radogaga
COPY pyproject.toml constraints.txt docker/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py pyproject.toml cpu,training > requirements.txt \
    && pip --python /opt/radogaga/bin/python install --no-compile ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        --constraint constraints.txt --requirement requirements.txt
COPY training /opt/project/training
COPY models/manifest.schema.json /opt/project/models/
RUN python -m compileall -q -j 0 /opt/radogaga/lib /opt/project

FROM python:3.12-slim AS training
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="RaDOGAGA training" \
      org.opencontainers.image.description="Fits RaDOGAGA's models and exports them for the service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# HOME and MPLCONFIGDIR: whoever it runs as may have no home there.
ENV PATH=/opt/radogaga/bin:$PATH \
    PYTHONPATH=/opt/project \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp \
    RADOGAGA_DATA=/data
COPY --from=build /opt/radogaga /opt/radogaga
COPY --from=build /opt/project /opt/project
WORKDIR /work
USER 10001:10001
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "training"]
