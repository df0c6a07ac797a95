# The service, for a CPU (--target cpu) or an NVIDIA GPU (--target gpu; CUDA comes with onnxruntime-gpu, the driver with the
# host). Models are not in it: mount them read-only at /models. Build it from the project's folder:
#   docker build --file docker/service.Dockerfile --target cpu --tag radogaga:cpu .

FROM python:3.12-slim AS build
# Further extras of the project, such as "traces".
ARG EXTRAS=""
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/radogaga
COPY pyproject.toml constraints.txt constraints-gpu.txt docker/requirements.py docker/slim.sh ./

FROM build AS build-cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py pyproject.toml "cpu,$EXTRAS" > requirements.txt \
    && pip --python /opt/radogaga/bin/python install --no-compile --constraint constraints.txt --requirement requirements.txt \
    && sh slim.sh /opt/radogaga "$EXTRAS"
COPY README.md LICENSE ./
COPY service service
COPY training training
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/radogaga/bin/python install --no-compile --no-deps . \
    && python -m compileall -q -j 0 /opt/radogaga/lib

FROM build AS build-gpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py pyproject.toml "gpu,$EXTRAS" > requirements.txt \
    && pip --python /opt/radogaga/bin/python install --no-compile \
        --constraint constraints.txt --constraint constraints-gpu.txt --requirement requirements.txt \
    && sh slim.sh /opt/radogaga "$EXTRAS"
COPY README.md LICENSE ./
COPY service service
COPY training training
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/radogaga/bin/python install --no-compile --no-deps . \
    && python -m compileall -q -j 0 /opt/radogaga/lib

FROM python:3.12-slim AS service
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="RaDOGAGA" \
      org.opencontainers.image.description="RaDOGAGA anomaly scores as a REST microservice" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENV PATH=/opt/radogaga/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    RADOGAGA_HOST=0.0.0.0 \
    RADOGAGA_PORT=8000 \
    RADOGAGA_MODELS=/models \
    RADOGAGA_REVISION=$REVISION
WORKDIR /models
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "service.health"]
ENTRYPOINT ["python", "-m", "service"]

FROM service AS gpu
COPY --from=build-gpu /opt/radogaga /opt/radogaga

FROM service AS cpu
COPY --from=build-cpu /opt/radogaga /opt/radogaga
