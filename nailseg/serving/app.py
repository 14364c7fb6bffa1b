"""`nailseg serve`: a model behind HTTP, and a web page to try it on.

Nothing is stored or sent elsewhere. There is no password, so only requests from this machine are answered
unless another address is given. `GET /openapi.json` describes the API. Needs the serve extra.
"""

import contextlib
import logging
import socket
from collections.abc import Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import python_multipart  # noqa: F401 - FastAPI checks for it late, and with a less helpful message
import uvicorn
from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from nailseg import __version__
from nailseg.data.io.headers import FORMATS
from nailseg.data.io.images import decode_image
from nailseg.errors import ConfigError, DataError, NailsegError
from nailseg.imaging import recolor
from nailseg.imaging.overlay import encode_image
from nailseg.inference import segmenter
from nailseg.inference.polygons import describe_objects
from nailseg.model_info import DEFAULT_MODEL
from nailseg.serving.request_queue import SHUTDOWN_SECONDS, Admission, RequestQueue, Server, TimedProtocol

log = logging.getLogger("nailseg")

MAX_BYTES, MAX_PIXELS, MAX_SIDE = 64_000_000, 50_000_000, 16_000
"""Limits of an uploaded image, of which the largest take gigabytes of memory."""

Upload = Annotated[UploadFile, File(description=FORMATS)]
Answer = Literal["mask", "probability", "overlay", "objects"]


def create_app(segment: segmenter.Segmenter, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """Creates an application with `GET /` (the page), `GET /model`, `POST /predict` and `POST /tryon`.

    Invalid requests get a 4xx status and JSON, whose `detail` says what was expected and found.

    Args:
        segment: From `nailseg.load`.
        hosts: Allowed host names. Requests with another Host header are refused, so that web pages cannot
            reach a server that is only for this machine (DNS rebinding).
    """
    # the documentation pages of FastAPI load scripts from other servers
    app = FastAPI(title="nailseg", version=__version__, docs_url=None, redoc_url=None)
    app.state.queue = queue = RequestQueue()
    paths = {"/", "/model", "/predict", "/tryon", "/healthz", "/readyz", "/metrics"}
    app.add_middleware(Admission, queue=queue, max_bytes=lambda: MAX_BYTES, paths=paths)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    page = (resources.files("nailseg.serving") / "page" / "index.html").read_text(encoding="utf-8")

    @app.exception_handler(Exception)
    @app.exception_handler(NailsegError)
    async def handle_error(request: Request, error: Exception) -> Response:
        if isinstance(error, NailsegError):
            return _error(400, str(error))
        return _error(500, "internal error of the server; see its log")

    @app.get("/", include_in_schema=False, response_class=HTMLResponse)
    async def show_page() -> str:
        return page

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether another image would be taken: 200, or 503 while the queue is full or the server ends."""
        ready = queue.is_ready
        return JSONResponse({"status": "ready" if ready else "busy"}, 200 if ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Requests by path and status, their seconds, and how many wait, in Prometheus' text format."""
        return Response(generate_latest(queue.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Class names in index order, the network's image size, the origin of the weights."""
        origin = {key: segment.info.origin.get(key, "unknown") for key in ("weights", "licence")}
        if (path := Path(origin["weights"])).is_absolute():
            origin["weights"] = path.name  # clients must not learn the folders of this machine
        facts: dict[str, Any] = {"classes": segment.class_names, "image_size": segment.info.image_size}
        return facts | origin | {"nailseg": __version__}

    @app.post("/predict", response_class=Response)
    def predict(file: Upload, answer: Answer = "mask", tta: bool = False) -> Response:
        """Segments one image, at its own size.

        mask: PNG of 0 and 255, or of class indices for more than two classes; probability: of the foreground,
        16-bit PNG, 0..65535 for 0..1; overlay: JPEG; objects: outline, box, area and score of each, as JSON.
        """
        result = segment(_decode(file, segment), tta)
        if answer == "objects":
            path = PurePosixPath(_base_name(file))
            record = describe_objects(path, path.with_suffix(".png"), result.mask, result.probability)
            return JSONResponse({"classes": result.class_names, **record})
        if answer == "overlay":
            return _image(result.overlay(), "jpeg")
        if answer == "probability":
            return _image(result.encode_probability(), "png")
        return _image(result.encode_mask(), "png")

    @app.post("/tryon", response_class=Response)
    def try_on(file: Upload, color: str) -> Response:
        """Recolours nails (#c2185b, rgb(194, 24, 91) or crimson); without nails, the JPEG is unchanged."""
        rgb = recolor.parse_color(color)
        result = segment(_decode(file, segment))
        coverage = recolor.compute_coverage(result.mask, result.foreground_probability())
        return _image(recolor.recolor(result.image, coverage, rgb), "jpeg")

    return app


def _error(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _base_name(file: UploadFile) -> str:
    return PurePosixPath(file.filename or "").name or "image"


def _decode(file: UploadFile, segment: segmenter.Segmenter) -> np.ndarray:
    data, image_range = file.file.read(MAX_BYTES), segment.info.image_range
    image = decode_image(data, _base_name(file), MAX_PIXELS, image_range).pixels
    if max(image.shape) > MAX_SIDE:
        height, width = image.shape[:2]
        raise DataError(f"expected sides of at most {MAX_SIDE:,} pixels, found {width:,} x {height:,}")
    return image


def _image(pixels: np.ndarray, form: str) -> Response:
    return Response(encode_image(pixels, f".{form}"), media_type=f"image/{form}")


def serve(
    *,
    model: str = DEFAULT_MODEL,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
) -> None:
    """Serves a model over HTTP, with a web page to try it on, until interrupted.

    Args:
        model: A model folder, checkpoint, run folder, exported file, or the name of a shipped model.
        host: The address to listen on; 0.0.0.0 is all addresses of this machine. There is no password.
        port: Port to listen on; 0 takes a free one.
        device: Device such as cpu or cuda; by default a GPU if there is one.
        threshold: Minimum probability of a foreground pixel; model: the threshold with the best validation
            Dice. For two classes only; by default the more probable class.

    Raises:
        ConfigError: The address is not available.
        WeightsError: The model cannot be used.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: expected a number from 0 (a free one) to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: expected a free address of this machine, found that it is not "
            f"available ({error}). Use another --port (0 is a free one), or leave --host out."
        ) from error
    name = f"[{host}]" if family == socket.AF_INET6 else host
    hosts = ("*",) if host in ("0.0.0.0", "::") else ("localhost", "127.0.0.1", "[::1]", name)
    with listening:
        segment = segmenter.load(model, device, threshold)
        segment(np.full((64, 64, 3), 128, np.uint8))  # a model that gives nan is refused here
        app = create_app(segment, hosts)
        log.info("%s at http://%s:%d (Ctrl-C ends it)", model, name, listening.getsockname()[1])
        config = uvicorn.Config(
            app, http=TimedProtocol, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS
        )
        with contextlib.suppress(KeyboardInterrupt):
            Server(config, app.state.queue).run(sockets=[listening])
