"""The server under load, stalled and abandoned requests, and its shutdown: over real connections."""

import contextlib
import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

import nailseg
from nailseg.inference.segmenter import Result
from nailseg.model_info import ModelInfo
from nailseg.serving import app, request_queue


class Gated:
    """A model whose work ends when the test says so."""

    class_names, info = ["background", "nail"], ModelInfo(["background", "nail"])

    def __init__(self) -> None:
        self.calls, self.gate = 0, threading.Event()

    def __call__(self, image: np.ndarray, *_: Any) -> Result:
        self.calls += 1
        assert self.gate.wait(30)
        mask = np.zeros(image.shape[:2], np.uint8)
        return Result(image, mask, np.stack([1.0 - mask, mask]).astype(np.float32), self.class_names)


@pytest.fixture(scope="module")
def photo() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def serving(segment: Any) -> Iterator[tuple[str, request_queue.Server]]:
    """A server in a thread, at its address; it shuts down at the end."""
    application = app.create_app(segment)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            application, http=request_queue.TimedProtocol, log_level="critical", timeout_graceful_shutdown=10
        )
        server = request_queue.Server(config, application.state.queue)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join(30)


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def post(address: str, photo: bytes) -> httpx.Response:
    return httpx.post(f"{address}/predict", files={"file": ("hand.png", photo)}, timeout=60)


def connect(address: str, text: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
    connection.sendall(text)
    return connection


def raw_request(photo: bytes) -> bytes:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        + photo
        + b"\r\n--b--\r\n"
    )
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_hundred_clients_at_once(mixed_model, photo) -> None:
    segment = nailseg.load(mixed_model, device="cpu")
    expected = segment(photo).mask * 255
    with serving(segment) as (address, _), ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(lambda _: post(address, photo), range(100)))
        metrics = httpx.get(f"{address}/metrics").text
    codes = Counter(reply.status_code for reply in replies)
    assert set(codes) <= {200, 429}
    assert codes[200] > 2
    for reply in replies:
        if reply.status_code == 200:
            assert np.array_equal(cv2.imdecode(np.frombuffer(reply.content, np.uint8), 0), expected)
        else:
            assert int(reply.headers["retry-after"]) > 0
    assert f'nailseg_requests_total{{path="/predict",status="200"}} {codes[200]}.0' in metrics


def test_a_full_queue_refuses_and_says_so(photo, monkeypatch) -> None:
    monkeypatch.setattr(request_queue, "MAX_WAITING", 3)
    segment = Gated()
    with serving(segment) as (address, server), ThreadPoolExecutor(8) as pool:
        assert httpx.get(f"{address}/readyz").status_code == 200
        taken = [pool.submit(post, address, photo) for _ in range(5)]  # two workers and the queue
        wait_until(lambda: server.queue.waiting == 3)
        assert httpx.get(f"{address}/readyz").status_code == 503
        assert httpx.get(f"{address}/healthz").status_code == 200
        refused = post(address, photo)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert "waiting" in refused.json()["detail"]
        segment.gate.set()
        assert [each.result().status_code for each in taken] == [200] * 5
        assert post(address, photo).status_code == 200


def test_bodies_that_are_sent_at_once_are_bounded(photo, monkeypatch) -> None:
    monkeypatch.setattr(request_queue, "MAX_READING", 3 * len(raw_request(photo)))
    segment = Gated()
    segment.gate.set()
    with serving(segment) as (address, server):
        slow = [connect(address, raw_request(photo)[:-100]) for _ in range(3)]
        wait_until(lambda: server.queue.reading > 2 * len(photo))
        assert post(address, photo).status_code == 429
        for connection in slow:
            connection.close()
        wait_until(lambda: server.queue.reading == 0)
        assert post(address, photo).status_code == 200


def test_abandoned_requests_are_dropped(photo) -> None:
    segment = Gated()
    with serving(segment) as (address, server), ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(post, address, photo) for _ in range(2)]
        wait_until(lambda: segment.calls == 2)
        left = [connect(address, raw_request(photo)) for _ in range(12)]
        wait_until(lambda: server.queue.waiting == 12)
        for connection in left:
            connection.close()
        wait_until(lambda: server.queue.waiting == 0)
        segment.gate.set()
        assert [each.result().status_code for each in taken] == [200] * 2
        assert post(address, photo).status_code == 200
        assert segment.calls == 3, "nobody worked for those who had left"
        assert 'path="/predict",status="499"} 12.0' in httpx.get(f"{address}/metrics").text


def test_stalled_connections_are_closed(photo, monkeypatch) -> None:
    monkeypatch.setattr(request_queue, "READ_SECONDS", 0.5)
    segment = Gated()
    segment.gate.set()
    with serving(segment) as (address, _):
        silent = [connect(address, text) for text in (b"", b"POST /pre", raw_request(photo)[:-100]) * 30]
        for number, connection in enumerate(silent):
            connection.settimeout(20)
            answer = connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 408" if number % 3 == 2 else b""), answer
            assert number % 3 == 2 or answer == b""
            connection.close()
        assert post(address, photo).status_code == 200


def test_work_has_a_time_limit_and_keeps_its_worker_until_it_ends(photo, monkeypatch) -> None:
    monkeypatch.setattr(request_queue, "WORK_SECONDS", 0.3)
    segment = Gated()
    with serving(segment) as (address, server):
        assert post(address, photo).status_code == 503
        assert post(address, photo).status_code == 503
        assert server.queue.slots.locked(), "the threads still work"
        segment.gate.set()
        wait_until(lambda: not server.queue.slots.locked())
        monkeypatch.setattr(request_queue, "WORK_SECONDS", 30)
        assert post(address, photo).status_code == 200


def test_waiting_has_a_time_limit(photo, monkeypatch) -> None:
    monkeypatch.setattr(request_queue, "WAIT_SECONDS", 0.2)
    segment = Gated()
    with serving(segment) as (address, _), ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(post, address, photo) for _ in range(2)]
        wait_until(lambda: segment.calls == 2)
        assert post(address, photo).status_code == 503
        segment.gate.set()
        assert [each.result().status_code for each in taken] == [200] * 2


def test_shutdown_finishes_what_has_begun_and_refuses_the_rest(photo) -> None:
    segment = Gated()
    with serving(segment) as (address, server), ThreadPoolExecutor(6) as pool:
        begun = [pool.submit(post, address, photo) for _ in range(2)]
        wait_until(lambda: segment.calls == 2)
        waiting = [pool.submit(post, address, photo) for _ in range(4)]
        wait_until(lambda: server.queue.waiting == 4)
        server.should_exit = True
        assert [each.result().status_code for each in waiting] == [503] * 4
        segment.gate.set()
        assert [each.result().status_code for each in begun] == [200] * 2


@pytest.mark.slow
def test_memory_stays_flat(mixed_model, photo) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    with serving(nailseg.load(mixed_model, device="cpu")) as (address, _), ThreadPoolExecutor(4) as pool:
        sizes = []
        for _ in range(2):
            codes = Counter(pool.map(lambda _: post(address, photo).status_code, range(2500)))
            assert codes == {200: 2500}
            sizes.append(resident())
    assert sizes[1] - sizes[0] < 30e6
