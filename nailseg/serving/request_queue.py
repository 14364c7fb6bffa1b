"""Admits requests to the workers: a bounded queue with time limits, and its numbers for Prometheus."""

import asyncio
import tempfile
import time
from typing import Any

import uvicorn
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

WORKERS = 2
"""Images that are decoded, segmented or encoded at a time, each in a thread; the others wait."""
MAX_WAITING = 32
"""Requests that wait for a worker; more are answered 429."""
READ_SECONDS, WAIT_SECONDS, WORK_SECONDS = 30.0, 60.0, 120.0
"""Time limits for sending a request, waiting for a worker, and the work itself."""
SHUTDOWN_SECONDS = 25
"""Time for the work that has begun when the server shuts down; Kubernetes kills after 30 seconds."""
MAX_READING = 1_000_000_000
"""Bytes of the bodies that are read or wait at a time, as announced; most are on the disk."""
CHUNK = 1 << 20
"""Bytes of a body that are kept in memory; the rest is in a temporary file."""


class RequestQueue:
    """The state of a server's queue, with its numbers; `Admission` is the middleware that uses it.

    Attributes:
        closing: Set when the server shuts down: what waits is answered 503.
        registry: The numbers, for `/metrics`.
    """

    def __init__(self) -> None:
        self.slots, self.closing, self.waiting = asyncio.Semaphore(WORKERS), asyncio.Event(), 0
        self.reading = 0  # bytes
        self.registry = registry = CollectorRegistry()
        labels = ["path", "status"]
        self.requests = Counter("nailseg_requests", "Answered requests.", labels, registry=registry)
        self.seconds = Histogram(
            "nailseg_request_seconds", "Upload, wait and work.", ["path"], registry=registry
        )
        gauge = Gauge("nailseg_requests_waiting", "Requests that wait for a worker.", registry=registry)
        gauge.set_function(lambda: self.waiting)

    @property
    def is_ready(self) -> bool:
        """Whether another request would be admitted."""
        return not self.closing.is_set() and self.waiting < MAX_WAITING

    async def wait_for_worker(self, receive: Receive) -> int:
        """Waits for a worker; returns 200 with a slot to release, else 503, or 499 for a client that left."""
        self.waiting += 1
        slot = asyncio.ensure_future(self.slots.acquire())
        gone = asyncio.ensure_future(receive())  # after the body comes nothing but the disconnection
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait({slot, gone, closing}, timeout=WAIT_SECONDS, return_when="FIRST_COMPLETED")
            has_left = gone.done()
        finally:
            self.waiting -= 1
            for task in (gone, closing):
                task.cancel()
            has_slot = slot.done()
            if not has_slot:
                slot.cancel()
        if has_slot and has_left:
            self.slots.release()
        return 499 if has_left else 200 if has_slot else 503


class Admission:
    """ASGI middleware: POST requests pass through the queue; all are counted.

    Args:
        app: The application.
        queue: Its state.
        max_bytes: Returns the largest body; a larger one is refused before it is read.
        paths: Paths that are counted by name.
    """

    def __init__(self, app: ASGIApp, queue: RequestQueue, max_bytes: Any, paths: set[str]) -> None:
        self.app, self.queue, self.max_bytes, self.paths = app, queue, max_bytes, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request as ASGI describes it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path, start, status = scope["path"] if scope["path"] in self.paths else "other", time.monotonic(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            status = status or message.get("status", 0)
            await send(message)

        try:
            await (self._admit if scope["method"] == "POST" else self.app)(scope, receive, counted)
        except Exception:
            status = status or 500  # which the outermost middleware sends
            raise
        except asyncio.CancelledError:  # the time for a graceful shutdown is over
            if not status:
                await _refuse(503, "the server is shutting down")(scope, receive, counted)
        finally:
            # 499: the client left before an answer, in nginx's words
            self.queue.requests.labels(path, str(status or 499)).inc()
            self.queue.seconds.labels(path).observe(time.monotonic() - start)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        length, limit = headers.get(b"content-length", b""), self.max_bytes()
        if not length.isdigit() or b"transfer-encoding" in headers:  # which would replace the length
            answer = _refuse(411, "expected the header Content-Length, and not Transfer-Encoding")
        elif int(length) > limit:
            answer = _refuse(413, f"expected at most {limit:,} bytes, found {int(length):,}")
        elif self.queue.is_ready and self.queue.reading + int(length) <= MAX_READING:
            self.queue.reading += int(length)
            try:
                with tempfile.SpooledTemporaryFile(CHUNK) as body:
                    return await self._work(scope, receive, send, body)
            finally:
                self.queue.reading -= int(length)
        else:
            answer = self._busy()
        await answer(scope, receive, send)

    def _busy(self) -> JSONResponse:
        if self.queue.closing.is_set():
            return _refuse(503, "the server is shutting down")
        return _refuse(
            429, "as many requests are waiting or being sent as this server takes; try again later"
        )

    async def _work(self, scope: Scope, receive: Receive, send: Send, body: Any) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body.write(message.get("body", b""))
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            return await _refuse(408, f"expected the body within {READ_SECONDS:.0f} s")(scope, receive, send)
        if not self.queue.is_ready:  # others came while this body was sent
            return await self._busy()(scope, receive, send)
        admitted = await self.queue.wait_for_worker(receive)
        if admitted == 499:
            return
        if admitted != 200:
            text = f"no worker was free within {WAIT_SECONDS:.0f} s, or the server is shutting down"
            return await _refuse(503, text)(scope, receive, send)
        body.seek(0)
        is_late = False

        async def replay() -> Message:
            part = body.read(CHUNK)
            if not part and is_late:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": len(part) == CHUNK}

        async def send_in_time(message: Message) -> None:
            if not is_late:
                await send(message)

        task = asyncio.ensure_future(self.app(scope, replay, send_in_time))
        task.add_done_callback(lambda _: self.queue.slots.release())  # a thread cannot be stopped
        await asyncio.wait({task}, timeout=WORK_SECONDS)
        if task.done():
            return task.result()
        is_late = True
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody asks for it now
        await _refuse(503, f"expected an answer within {WORK_SECONDS:.0f} s")(scope, receive, send)


def _refuse(status: int, detail: str) -> JSONResponse:
    headers = {"Retry-After": "2"} if status in (429, 503) else {}
    headers |= {"Connection": "close"} if status in (408, 411, 413, 429) else {}  # the body may be unread
    return JSONResponse({"detail": detail}, status, headers)


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which closes connections that do not send a whole header within a limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().connection_made(transport)
        self.loop.call_later(READ_SECONDS, self._check, None)

    def _check(self, earlier: object) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is earlier and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()  # no request began since the last check
        else:
            self.loop.call_later(READ_SECONDS, self._check, self.cycle)


class Server(uvicorn.Server):
    """uvicorn's server, which empties the queue when it shuts down."""

    def __init__(self, config: uvicorn.Config, queue: RequestQueue) -> None:
        super().__init__(config)
        self.queue = queue

    async def shutdown(self, sockets: Any = None) -> None:
        """Answers what waits with 503, and lets what has begun end within the config's limit."""
        self.queue.closing.set()
        await super().shutdown(sockets)
