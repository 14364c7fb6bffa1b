"""`nailseg serve`: a model behind HTTP, and one page to try it on.

Nothing is stored, nothing is sent anywhere, and only this machine is answered unless another address is asked
for: there is no password. `GET /docs` describes what programs can ask. Needs the serve extra.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import python_multipart  # noqa: F401 - FastAPI asks for it too late, and in its own words
import uvicorn
from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse

from nailseg import __version__, objects, predictor, tryon
from nailseg.data.reading import decode_image
from nailseg.errors import ConfigError, NailsegError
from nailseg.predictor import Result, Segmenter

log = logging.getLogger("nailseg")

PAGE = Path(__file__).parent / "page" / "index.html"

MAX_BYTES, MAX_PIXELS = 64_000_000, 64_000_000
"""Of a picture that is sent: more than cameras make, less than what fills a small machine's memory."""

AT_ONCE = 2
"""Pictures in the network at a time; the others wait, for all share the same processors."""

Picture = Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP or TIFF")]


def web_app(segment: Segmenter) -> FastAPI:
    """The application, for `serve`, for a server of your own and for tests.

    Args:
        segment: from `nailseg.load`.

    Returns:
        Answers to `GET /` (the page), `GET /model`, `POST /predict` and `POST /tryon`. Faults of the request
        are answered with 4xx and JSON, `detail` says what was expected and found.
    """
    app = FastAPI(title="nailseg", version=__version__)
    turn = threading.BoundedSemaphore(AT_ONCE)
    page = PAGE.read_text()

    @app.middleware("http")
    async def limit(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST":  # before anything of it is read
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                return JSONResponse({"detail": "expected the header Content-Length, found none"}, 411)
            if int(length) > MAX_BYTES:
                detail = f"expected at most {MAX_BYTES:,} bytes, found {int(length):,}"
                return JSONResponse({"detail": detail}, 413)
        return await call_next(request)

    @app.exception_handler(NailsegError)
    async def refuse(request: Request, error: NailsegError) -> Response:
        return JSONResponse({"detail": str(error)}, 400)

    def looked_at(file: UploadFile, tta: bool = False) -> tuple[str, Result]:
        name = PurePosixPath(file.filename or "picture").name
        image = decode_image(file.file.read(), name, MAX_PIXELS)
        with turn:
            return name, segment(image, tta)

    # plain functions, not coroutines: FastAPI runs them in threads, and the server goes on answering

    @app.get("/", include_in_schema=False)
    def show_page() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/model")
    def model() -> dict[str, Any]:
        """Class names in index order, the size the network sees, where the weights come from."""
        info = segment.info
        origin = {key: info.origin.get(key, "unknown") for key in ("weights", "licence")}
        return {"classes": info.class_names, "image_size": info.image_size, **origin, "nailseg": __version__}

    @app.post("/predict", response_model=None)
    def predict(
        file: Picture,
        answer: Literal["mask", "probability", "overlay", "objects"] = "mask",
        tta: bool = False,
    ) -> Response | dict[str, Any]:
        """What is in one picture, at its own size.

        mask: PNG of 0 and 255, or of class indices if there are more than two; probability: that of the
        foreground, PNG of 16 bits, 65535 is certain; overlay: JPEG; objects: outline, box, area and score of
        each, as JSON.
        """
        name, result = looked_at(file, tta)
        if answer == "objects":
            path = PurePosixPath(name)
            record = objects.describe(path, path.with_suffix(".png"), result.mask, result.probability)
            return {"classes": result.class_names, **record}
        if answer == "overlay":
            return _image(".jpg", result.overlay()[..., ::-1])
        if answer == "probability":
            return _image(".png", np.rint(result.foreground() * 65535).astype(np.uint16))
        return _image(".png", result.mask * np.uint8(255 if len(result.class_names) == 2 else 1))

    @app.post("/tryon", response_class=Response)
    def try_on(file: Picture, color: str) -> Response:
        """The picture with its nails in another colour (#c2185b, rgb(194, 24, 91) or crimson), as JPEG."""
        chosen = tryon.rgb(color)
        _, result = looked_at(file)
        cover = tryon.coat(result.mask, result.foreground())
        return _image(".jpg", tryon.paint(result.image, cover, chosen)[..., ::-1])

    return app


def _image(suffix: str, pixels: np.ndarray) -> Response:
    content = cv2.imencode(suffix, pixels)[1].tobytes()
    return Response(content, media_type="image/jpeg" if suffix == ".jpg" else "image/png")


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
    threshold: float | Literal["model"] | None = None,
) -> None:
    """Answers until interrupted.

    Args:
        model: as `predictor.load` takes it.
        host: the address to answer at; 0.0.0.0 is every one of this machine's.
        port: 0 takes a free one.
        device: as `predictor.load` takes it.
        threshold: as `predictor.load` takes it.

    Raises:
        ConfigError: the address cannot be had.
        WeightsError: the model cannot be used.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: expected a number from 0 (a free one) to 65535.")
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: expected an address to answer at, found that it cannot be had "
            f"({error}). Give another --port, or 0 for a free one."
        ) from error
    with listening:
        app = web_app(predictor.load(model, device, threshold))
        log.info("%s at http://%s:%d (Ctrl-C ends it)", model, *listening.getsockname()[:2])
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
