"""Weights from the hub and its cache, without network, and their licences."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from nailseg.errors import WeightsError
from nailseg.models import pretrained
from nailseg.models.segformer import SegFormer
from tests.models.conftest import edit_config, old_name, same_logits


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and a hub that refuses every connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


def fill(cache: Path, name: str, folder: Path) -> None:
    """Copies a folder into the cache, in the layout of the hub's client."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def test_cached_hub_models(
    cache: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = {old_name(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "preprocessor_config.json").write_text("{}")
    fill(cache, "nvidia/segformer-b0-finetuned-ade-512-512", folder)
    (folder / "preprocessor_config.json").unlink()
    encoder = {name: tensor for name, tensor in tensors.items() if "decode_head" not in name}
    (folder / "model.safetensors").unlink()
    torch.save(
        encoder | {"classifier.weight": torch.zeros(9, 32)}, folder / "pytorch_model.bin"
    )  # as the hub's
    fill(cache, "nvidia/mit-b0", folder)

    with caplog.at_level(logging.WARNING, "nailseg"):
        whole = SegFormer("nvidia/segformer-b0-finetuned-ade-512-512")
    assert [r.message for r in caplog.records if "non-commercial" in r.message] == [
        r.message for r in caplog.records
    ]
    assert len(caplog.records) == 1
    assert not whole.new_head
    with caplog.at_level(logging.WARNING, "nailseg"):  # as transformers leaves the cache
        network = SegFormer("nvidia/mit-b0", ["background", "nail"])
    assert "using ImageNet's mean and standard deviation" in caplog.text
    assert network.new_head
    assert network.origin == {"weights": "nvidia/mit-b0", "licence": pretrained.NON_COMMERCIAL}
    assert torch.equal(
        network.hf.segformer.stages[1].blocks[0].mlp.fc1.weight,
        encoder["segformer.encoder.block.1.0.mlp.dense1.weight"],
    )


class FakeHub(BaseHTTPRequestHandler):
    """Serves a folder as the hub serves a model: its information, its listing and its files."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self) -> None:
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        part = self.path.partition("?")[0].rpartition("/")[2]
        etag = hashlib.sha1(files.get(part, b"")).hexdigest()
        if "/resolve/" in self.path:
            body = files.get(part)
        elif "/tree/" in self.path:
            listing = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in files.items()]
            body = json.dumps(listing).encode()
        else:
            siblings = [{"rfilename": name} for name in files]
            body = json.dumps({"id": "owner/name", "sha": self.commit, "siblings": siblings}).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("form", pretrained.WEIGHT_FILES)
def test_download(cache: Path, folder: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads the JSON files and one file of weights; the second time it uses the cache alone."""
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    if form == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    (folder / "tf_model.h5").write_bytes(b"not needed")
    FakeHub.folder = folder
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        files_at = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + files_at)
        network = SegFormer("owner/name")
        server.shutdown()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in network.hf.state_dict().items())
    assert network.mean.flatten().tolist() == [0.5] * 3
    (snapshot,) = cache.glob("models--owner--name/snapshots/*")
    assert {path.name for path in snapshot.iterdir()} == {"config.json", "preprocessor_config.json", form}
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in snapshot.iterdir())
    assert same_logits(SegFormer("owner/name").hf, network.hf)  # the server is gone


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a download retries for half a minute before it fails, so none may start
    real = huggingface_hub.snapshot_download

    def from_cache(name: str, *, local_files_only: bool = False, **options: object) -> str:
        assert local_files_only, "started a download"
        return real(name, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", from_cache)
    message = r"hub cannot be reached .*Without network: download .* filled cache .* 'b0-random'"
    with pytest.raises(WeightsError, match=message):
        SegFormer("nvidia/mit-b0")


def test_server_that_never_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(pretrained, "HUB_TIMEOUT", 0.2)
        with pytest.raises(WeightsError, match="hub cannot be reached"):
            SegFormer("nvidia/mit-b0")


def test_offline_mode(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"hub cannot be reached .*Without network"):
        SegFormer("nvidia/mit-b0")


def test_interrupted_download_is_not_used(cache: Path, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    fill(cache, "nvidia/mit-b0", folder)
    with pytest.raises(WeightsError, match="hub cannot be reached"):
        SegFormer("nvidia/mit-b0")


def test_origin_of_folders(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert SegFormer(str(folder)).origin == {"weights": str(folder), "licence": pretrained.UNKNOWN_LICENCE}
    assert not caplog.records
    edit_config(folder, _name_or_path="nvidia/mit-b3")
    assert SegFormer(str(folder)).origin == {"weights": "nvidia/mit-b3", "licence": pretrained.NON_COMMERCIAL}
    assert "non-commercial" in caplog.text
    (folder / "nailseg.json").write_text(json.dumps({"origin": {"weights": "mine", "licence": "CC-BY-4.0"}}))
    assert SegFormer(str(folder)).origin == {"weights": "mine", "licence": "CC-BY-4.0"}
