"""`nailseg serve`: a model behind HTTP, and one page to try it on.

Nothing is stored, nothing is sent anywhere, and only this machine is answered unless another address is asked
for: there is no password. `GET /openapi.json` describes what programs can ask. Needs the serve extra.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import python_multipart  # noqa: F401 - FastAPI asks for it too late, and in its own words
import uvicorn
from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from nailseg import __version__
from nailseg.data.io.images import decode_image
from nailseg.errors import ConfigError, DataError, NailsegError
from nailseg.imaging import recolor
from nailseg.imaging.overlay import encode_image
from nailseg.inference import polygons, segmenter
from nailseg.inference.segmenter import Segmenter
from nailseg.model_info import SHIPPED

log = logging.getLogger("nailseg")

PAGE = resources.files("nailseg.serving") / "page" / "index.html"

MAX_BYTES, MAX_PIXELS, MAX_SIDE = 64_000_000, 50_000_000, 16_000
"""Of an image that is sent. While one of 50 million pixels is looked at, it takes 3 GB of memory; in an
OpenVINO model 5 GB."""

AT_ONCE = 2
"""Images that are decoded, looked at or encoded at a time, each in a thread; the others wait."""

Picture = Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP or TIFF")]


def create_app(segment: Segmenter, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application, for `serve`, for a server of your own and for tests.

    Args:
        segment: from `nailseg.load`.
        hosts: names under which it answers; any other in a request's Host is refused, which keeps web pages
            from reaching a server that is only for this machine (DNS rebinding).

    Returns:
        Answers to `GET /` (the page), `GET /model`, `POST /predict` and `POST /tryon`. Faults of the request
        are answered with 4xx and JSON, `detail` says what was expected and found.
    """
    # FastAPI's own pages of documentation load scripts from elsewhere
    app = FastAPI(title="nailseg", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    workers = ThreadPoolExecutor(AT_ONCE, "nailseg")
    page = PAGE.read_text()

    @app.middleware("http")
    async def limit(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST":  # before anything of it is read
            length = request.headers.get("content-length", "")
            # with both headers the length would not be what counts
            if not length.isdecimal() or "transfer-encoding" in request.headers:
                return _refusal(411, "expected the header Content-Length, and not Transfer-Encoding")
            if int(length) > MAX_BYTES:
                return _refusal(413, f"expected at most {MAX_BYTES:,} bytes, found {int(length):,}")
        return await call_next(request)

    @app.exception_handler(NailsegError)
    async def refuse(request: Request, error: NailsegError) -> Response:
        return _refusal(400, str(error))

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return _refusal(500, "a fault of the server's; its log says more")

    async def worked(action: Callable[[], Response]) -> Response:
        return await asyncio.get_running_loop().run_in_executor(workers, action)

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Class names in index order, the size the network sees, where the weights come from."""
        origin = {key: segment.info.origin.get(key, "unknown") for key in ("weights", "licence")}
        if (place := Path(origin["weights"])).is_absolute():
            origin["weights"] = place.name  # where it lies is nobody's business
        size = {"image_size": segment.info.image_size}
        return {"classes": segment.class_names, **size, **origin, "nailseg": __version__}

    @app.post("/predict", response_class=Response)
    async def predict(
        file: Picture,
        answer: Literal["mask", "probability", "overlay", "objects"] = "mask",
        tta: bool = False,
    ) -> Response:
        """What is in one image, at its own size.

        mask: PNG of 0 and 255, or of class indices if there are more than two; probability: that of the
        foreground, PNG of 16 bits, 65535 is certain; overlay: JPEG; objects: outline, box, area and score of
        each, as JSON.
        """

        def action() -> Response:
            result = segment(_decoded(file), tta)
            if answer == "objects":
                path = PurePosixPath(_name(file))
                paths = path, path.with_suffix(".png")
                record = polygons.describe_objects(*paths, result.mask, result.probability)
                return JSONResponse({"classes": result.class_names, **record})
            if answer == "overlay":
                return _image(".jpg", result.overlay())
            if answer == "probability":
                return _image(".png", segmenter.quantize_probability(result.foreground_probability()))
            return _image(".png", result.encode_mask())

        return await worked(action)

    @app.post("/tryon", response_class=Response)
    async def try_on(file: Picture, color: str) -> Response:
        """The image with its nails in another colour (#c2185b, rgb(194, 24, 91) or crimson), as JPEG.

        Where no nail is found, it is the image itself.
        """
        chosen = recolor.parse_color(color)

        def action() -> Response:
            result = segment(_decoded(file))
            cover = recolor.compute_coverage(result.mask, result.foreground_probability())
            return _image(".jpg", recolor.recolor(result.image, cover, chosen))

        return await worked(action)

    return app


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _name(file: UploadFile) -> str:
    """What the image is called, without folders."""
    return PurePosixPath(file.filename or "").name or "image"


def _decoded(file: UploadFile) -> np.ndarray:
    image = decode_image(file.file.read(MAX_BYTES), _name(file), MAX_PIXELS)
    if max(image.shape) > MAX_SIDE:
        height, width = image.shape[:2]
        raise DataError(f"expected sides of at most {MAX_SIDE:,} pixels, found {width:,} x {height:,}")
    return image


def _image(suffix: str, pixels: np.ndarray) -> Response:
    kind = "image/jpeg" if suffix == ".jpg" else "image/png"
    return Response(encode_image(pixels, suffix), media_type=kind)


def serve(
    *,
    model: str = SHIPPED,
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: expected a free address of this machine, found that it cannot be "
            f"had ({error}). Give another --port (0 is a free one), or leave --host out."
        ) from error
    everywhere = host in ("0.0.0.0", "::")
    name = f"[{host}]" if family == socket.AF_INET6 else host
    with listening:
        segment = segmenter.load(model, device, threshold)
        app = create_app(segment, ("*",) if everywhere else ("localhost", "127.0.0.1", "[::1]", name))
        log.info("%s at http://%s:%d (Ctrl-C ends it)", model, name, listening.getsockname()[1])
        # a client that has stalled is waited for so many seconds
        settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])
