"""What can't be beaten, and what is usually written: ``python -m tests.load.limits orjson --port 8000``.

`constant`, `orjson` and `raw` are bare ASGI applications that check nothing, count nothing and log nothing: they answer
always the same, score JSON, and score float32 values as they are. `usual` is FastAPI as its tutorial has it: a pydantic
model in, a response model out, a plain function in the thread pool.
"""

import argparse
from collections.abc import Callable

import orjson
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.load.graph import Scorer


def asgi(respond: Callable[[bytes], bytes], media_type: bytes) -> ASGIApp:
    """Returns an application that answers every request with 200."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                step = (await receive())["type"].removeprefix("lifespan.")
                await send({"type": f"lifespan.{step}.complete"})
                if step == "shutdown":
                    return
        message = await receive()
        chunks = [message["body"]]
        while message["more_body"]:
            message = await receive()
            chunks.append(message["body"])
        content = respond(b"".join(chunks))
        headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return application


def constant() -> ASGIApp:
    """Reads the body and answers as if it had one row."""
    return asgi(lambda _: b'{"scores":[0.5]}', b"application/json")


def orjson_and_onnxruntime() -> ASGIApp:
    """Scores JSON by orjson."""
    scorer = Scorer()

    def respond(body: bytes) -> bytes:
        scores = scorer.score_vectors(orjson.loads(body)["vectors"])
        return orjson.dumps({"scores": scores}, option=orjson.OPT_SERIALIZE_NUMPY)

    return asgi(respond, b"application/json")


def raw() -> ASGIApp:
    """Scores float32 values as they are."""
    return asgi(Scorer().score_bytes, b"application/octet-stream")


class Rows(BaseModel):
    """A request the usual way."""

    dataset: str
    vectors: list[list[float]]


class RowScores(BaseModel):
    """An answer the usual way."""

    scores: list[float]


def usual() -> FastAPI:
    """Scores JSON the usual way."""
    app, scorer = FastAPI(), Scorer()

    @app.post("/score")
    def score(rows: Rows) -> RowScores:
        return RowScores(scores=scorer.score_vectors(rows.vectors).tolist())

    return app


APPLICATIONS: dict[str, Callable[[], ASGIApp]] = {
    "constant": constant,
    "orjson": orjson_and_onnxruntime,
    "raw": raw,
    "usual": usual,
}


def main() -> None:
    """Serves one of the applications."""
    parser = argparse.ArgumentParser(description="Serve what the service is held against.")
    parser.add_argument("application", choices=APPLICATIONS)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(APPLICATIONS[options.application](), port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
