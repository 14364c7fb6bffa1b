import io
import re
import subprocess
import sys
import urllib.request

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import nailseg
from nailseg.cli.main import main
from nailseg.data.synthetic.sample import draw_hand
from nailseg.imaging import recolor
from nailseg.serving import app


@pytest.fixture(scope="module")
def segment(mixed_model):
    return nailseg.load(mixed_model)


@pytest.fixture(scope="module")
def ask(segment):
    with TestClient(app.create_app(segment)) as client:
        yield client


@pytest.fixture(scope="module")
def photo() -> bytes:
    pixels = draw_hand(np.random.default_rng(0), 90, 4)[0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def sent(photo: bytes, name: str = "hand.png") -> dict:
    return {"files": {"file": (name, photo)}}


def decoded(reply) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    return cv2.imdecode(np.frombuffer(reply.content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_answers_equal_the_python_results(ask, segment, photo) -> None:
    result = segment(photo)
    assert 0 < result.mask.mean() < 1
    mask = ask.post("/predict", **sent(photo))
    assert mask.headers["content-type"] == "image/png"
    assert np.array_equal(decoded(mask), result.mask * 255)
    probability = decoded(ask.post("/predict?answer=probability", **sent(photo)))
    assert probability.dtype == np.uint16
    assert np.abs(probability / 65535 - result.probability[1]).max() < 1e-4
    overlay = decoded(ask.post("/predict?answer=overlay", **sent(photo)))[..., ::-1]
    assert np.abs(overlay.astype(int) - result.overlay()).mean() < 8  # JPEG
    flipped = segment(photo, tta=True)
    assert np.array_equal(decoded(ask.post("/predict?tta=true", **sent(photo))), flipped.mask * 255)


def test_objects_cover_every_pixel(ask, segment, photo) -> None:
    answer = ask.post("/predict?answer=objects", **sent(photo, "some/where/hand.png")).json()
    assert answer["classes"] == ["background", "nail"]
    assert (answer["image"], answer["height"], answer["width"]) == ("hand.png", *segment(photo).mask.shape)
    assert sum(each["area"] for each in answer["objects"]) == segment(photo).mask.sum()
    assert all(0 <= each["score"] <= 1 for each in answer["objects"])


def test_tryon_recolors(ask, segment, photo) -> None:
    result = segment(photo)
    expected = recolor.recolor(
        result.image, recolor.compute_coverage(result.mask, result.foreground_probability()), (0, 0, 255)
    )
    recolored = decoded(ask.post("/tryon?color=blue", **sent(photo)))[..., ::-1]
    assert np.abs(recolored.astype(int) - expected).mean() < 8  # JPEG
    assert np.abs(expected.astype(int) - result.image).mean() > 8


def test_page_and_model(ask) -> None:
    page = ask.get("/")
    assert page.status_code == 200
    assert not re.search(r"(src|href)=.?https?:", page.text)  # works without a network
    answer = ask.get("/model").json()
    assert (answer["classes"], answer["image_size"]) == (["background", "nail"], 64)
    assert "/predict" in ask.get("/openapi.json").json()["paths"]


def test_invalid_requests_get_a_reason(ask, photo, monkeypatch) -> None:
    broken = ask.post("/predict", **sent(photo[: len(photo) // 2]))
    assert (broken.status_code, "hand.png" in broken.json()["detail"]) == (400, True)
    assert ask.post("/predict", **sent(b"")).status_code == 400
    assert ask.post("/predict", **sent(b"hello", "notes.txt")).status_code == 400
    assert ask.post("/predict").status_code == 422
    assert ask.post("/predict?answer=poem", **sent(photo)).status_code == 422
    colour = ask.post("/tryon?color=nail", **sent(photo))
    assert (colour.status_code, "expected a colour" in colour.json()["detail"]) == (400, True)
    monkeypatch.setattr(app, "MAX_BYTES", 1000)
    large = ask.post("/predict", **sent(photo))
    assert (large.status_code, "at most 1,000 bytes" in large.json()["detail"]) == (413, True)
    without_length = ask.post("/predict", content=(chunk for chunk in [b"a", b"b"]))
    assert without_length.status_code == 411
    both = {"content-length": "10", "transfer-encoding": "chunked"}  # the length would not be used
    assert ask.post("/predict", content=iter([photo]), headers=both).status_code == 411
    monkeypatch.undo()
    for limit, least in {"MAX_PIXELS": 50 * 50, "MAX_SIDE": 50}.items():
        monkeypatch.setattr(app, limit, least)
        refused = ask.post("/predict", **sent(photo))
        assert (refused.status_code, "pixels" in refused.json()["detail"]) == (400, True)
        monkeypatch.undo()
    assert ask.post("/predict", **sent(photo)).status_code == 200


@pytest.mark.parametrize("name", [".", "/", "..", "a/b.jpg", "Nägel .png", "no suffix"])
def test_unusual_file_names(ask, photo, name) -> None:
    assert ask.post("/predict?answer=objects", **sent(photo, name)).status_code == 200


def test_long_thin_image(ask) -> None:
    thin = io.BytesIO()
    Image.new("RGB", (15_000, 1)).save(thin, "PNG")
    assert ask.post("/tryon?color=rgb(300,0,0)", **sent(thin.getvalue())).status_code == 200


def test_server_error_is_json(photo) -> None:
    class Broken:
        class_names = ("background", "nail")

        def __call__(self, *_):
            raise ValueError("secret")

    with TestClient(app.create_app(Broken()), raise_server_exceptions=False) as client:
        reply = client.post("/predict", **sent(photo))
    assert (reply.status_code, "secret" in reply.text) == (500, False)
    assert "internal error of the server" in reply.json()["detail"]


def test_other_host_names_are_refused(segment) -> None:
    with TestClient(app.create_app(segment, ("localhost", "[::1]"))) as client:
        assert client.get("/model").status_code == 400  # as testserver
        assert client.get("/model", headers={"host": "localhost:8000"}).status_code == 200
        assert client.get("/model", headers={"host": "[::1]:8000"}).status_code == 200


def test_address_in_use(mixed_model, capsys) -> None:
    with app.socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(mixed_model), "--port", port]) == 1
    assert f"--port {port}: expected a free address" in capsys.readouterr().err
    for wrong in (["--port", "70000"], ["--host", "300.1.2.3"]):
        assert main(["serve", "--model", str(mixed_model), *wrong]) == 1


def test_serve_until_interrupted(mixed_model) -> None:
    command = [sys.executable, "-m", "nailseg", "serve", "--model", str(mixed_model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())[0]
            with urllib.request.urlopen(f"{address}/model", timeout=60) as reply:
                assert b'"nail"' in reply.read()
            process.send_signal(2)
            assert process.wait(60) in (0, -2, 130)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_missing_extra(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "nailseg.serving.app", None)
    assert main(["serve"]) == 1
    assert "pip install 'nailseg[serve]'" in capsys.readouterr().err
