"""The addresses of the server: /predict, /health, /metrics, /classes and /docs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from nameonly.serve import pages, schema
from nameonly.serve.batching import Batcher, Failure, Full, Stopped
from nameonly.serve.bodies import Body, Budget, Named, Refusal
from nameonly.serve.metrics import Metrics
from nameonly.serve.model import Scored, ServedClassifier
from nameonly.serve.settings import Options

RETRY_AFTER = {"Retry-After": "1"}
# bodies that may be in memory at once, in the largest that a request may have
LARGEST_BODIES = 8
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def answer_for(name: str, found: Any, names: Sequence[str], top: int) -> dict[str, Any]:
    """Return one image's entry of the answer.

    Args:
        name: Of the image.
        found: What the model says, or a ``Failure``.
        names: Of the classes.
        top: How many classes to name.
    """
    if not isinstance(found, Scored):
        reason = found.reason if isinstance(found, Failure) else "no result"
        return {"name": name, "label": None, "probability": None, "classes": [], "error": reason}
    columns = found.top(top)
    shown = columns[0] if found.label < 0 else found.label
    return {
        "name": name,
        "label": None if found.label < 0 else names[found.label],
        "probability": round(float(found.probs[shown]), 6),
        "classes": [
            {"name": names[i], "probability": round(float(found.probs[i]), 6)} for i in columns
        ],
        "error": None,
    }


class Service:
    """Answers requests with a model; knows nothing of routes.

    Attributes:
        model: What is served.
        options: The limits.
        metrics: What has been counted.
        batcher: Takes images to the model.
    """

    def __init__(self, model: ServedClassifier, options: Options) -> None:
        self.model = model
        self.options = options
        self.facts = model.facts()
        self.metrics = Metrics(
            lambda: self.batcher.under_way, lambda: self.ready, self.facts["nameonly"]
        )
        self.batcher = Batcher(model, options.batching, self.metrics)
        self._budget = Budget(LARGEST_BODIES * options.max_bytes)

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.batcher.running and not self.batcher.broken

    async def predict(self, request: Any, top: int) -> tuple[int, dict[str, Any]]:
        """Return the status and the content of the answer."""
        body = Body(request, self.options, self._budget)
        try:
            with body:
                return await self._predict(body, top)
        except Refusal as refusal:
            # what is still to come of the body, uvicorn reads and forgets
            return refusal.status, {"detail": refusal.detail}

    async def _predict(self, body: Body, top: int) -> tuple[int, dict[str, Any]]:
        until = time.monotonic() + self.options.timeout
        if self.batcher.under_way >= self.options.batching.capacity:
            raise Refusal(503, "too busy; try again")
        try:
            async with asyncio.timeout(self.options.timeout):
                images = await body.sources()
        except TimeoutError:
            raise Refusal(408, f"the body took more than {self.options.timeout:g} s") from None
        try:
            answer = self.batcher.submit([image.source for image in images])
        except Full:
            raise Refusal(503, "too busy; try again") from None
        except Stopped:
            raise Refusal(503, "the server stops") from None
        try:
            async with asyncio.timeout(until - time.monotonic()):
                found = await asyncio.wrap_future(answer)
        except TimeoutError:
            raise Refusal(504, f"it took more than {self.options.timeout:g} s") from None
        return self._answered(images, found, top)

    def _answered(
        self, images: list[Named], found: list[Any], top: int
    ) -> tuple[int, dict[str, Any]]:
        for one in found:
            self.metrics.images.labels(_kind(one)).inc()
        names = self.model.class_names
        pairs = zip(images, found, strict=True)
        content = {"images": [answer_for(image.name, one, names, top) for image, one in pairs]}
        if any(isinstance(one, Scored) for one in found):
            return 200, content
        if any(isinstance(one, Failure) and one.of_model for one in found):
            return 503, {"detail": "the model does not work at present", **content}
        return 422, {"detail": "none of the images could be used", **content}


def _kind(found: Any) -> str:
    if isinstance(found, Scored):
        return "abstained" if found.label < 0 else "labelled"
    return "failed" if isinstance(found, Failure) and found.of_model else "refused"


class Counted:
    """Counts the answers to /predict, also those that FastAPI gives by itself."""

    def __init__(self, app: Callable[..., Awaitable[None]], metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on; the status is seen on the answer's way back."""
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, seen)
        finally:
            self.metrics.answered(status, time.perf_counter() - begun)


def create_app(service: Service) -> Any:
    """Return the FastAPI application.

    Its own pages of documentation are off, for they load scripts from elsewhere.
    """
    from fastapi import FastAPI

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.stop)

    app = FastAPI(
        title="nameonly",
        version=service.facts["nameonly"],
        description="Classifies images with a saved classifier.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Counted, metrics=service.metrics)
    _add_predict(app, service)
    _add_pages(app, service)
    return app


def _add_predict(app: Any, service: Service) -> None:
    from fastapi import Query, Request, Response

    most = Query(ge=1, le=1000, description="Classes to name for each image.")

    async def predict(request: Request, top: Annotated[int, most] = 5) -> Response:
        status, content = await service.predict(request, top)
        headers = RETRY_AFTER if status == 503 else None
        # ASCII, for a file's name may hold what UTF-8 cannot
        return Response(json.dumps(content), status, headers, "application/json")

    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        summary="Classify images",
        description="Takes images as files of a form, as a bare body, or by address or path where "
        "that is allowed. One image that cannot be used does not harm the others.",
        responses=schema.PREDICT_ANSWERS,
        openapi_extra=schema.PREDICT_BODY,
        response_class=Response,
    )


def _add_pages(app: Any, service: Service) -> None:
    from fastapi import Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse

    async def health() -> Response:
        status = "ready" if service.ready else "not ready"
        content = {"status": status, "model": service.facts}
        return JSONResponse(content, 200 if service.ready else 503)

    async def classes() -> Response:
        return JSONResponse({"classes": list(service.model.class_names)})

    async def metrics() -> Response:
        text, kind = service.metrics.page()
        return Response(text, headers={"Content-Type": kind})

    async def docs(request: Request) -> Response:
        page = pages.docs_page(app.openapi(), str(request.base_url).rstrip("/"))
        return HTMLResponse(page, headers=pages.HEADERS)

    described: dict[str, Any] = {"methods": ["GET"], "response_class": Response}
    app.add_api_route(
        "/health",
        health,
        summary="Whether requests are answered, and by which model",
        responses=schema.HEALTH_ANSWERS,
        **described,
    )
    app.add_api_route(
        "/classes",
        classes,
        summary="The classes",
        responses=schema.CLASSES_ANSWERS,
        **described,
    )
    text = {200: {"description": "Text for Prometheus.", "content": {"text/plain": {}}}}
    app.add_api_route(
        "/metrics", metrics, summary="Figures of the server", responses=text, **described
    )
    app.add_api_route("/docs", docs, include_in_schema=False, methods=["GET"])
