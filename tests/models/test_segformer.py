"""SegFormer: architectures, loading from every source, and the faults of each."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import SegformerForImageClassification, SegformerForSemanticSegmentation, SegformerModel

from nailseg.errors import ConfigError, WeightsError
from nailseg.models import pretrained
from nailseg.models.mix_transformer import ARCHITECTURES
from nailseg.models.segformer import SegFormer

LEGACY = Path(__file__).parents[3] / "shared" / "legacy"
needs_legacy = pytest.mark.skipif(not LEGACY.is_dir(), reason="../shared/legacy is not here")

# the names that hub checkpoints have, as they were before transformers 5
OLD_NAMES = [
    (r"stages\.(\d+)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"stages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"stages\.(\d+)\.layer_norm\.", r"encoder.layer_norm.\1."),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc(\d)", r"mlp.dense\1"),
    (r"layernorm_before", "layer_norm_1"),
    (r"layernorm_after", "layer_norm_2"),
    (r"linear_projections", "linear_c"),
]


def old_name(name: str) -> str:
    for new, old in OLD_NAMES:
        name = re.sub(new, old, name)
    return name


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny network that a test may spoil, its tensors under transformers 5's names."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_folder, copy)
    network = SegformerForSemanticSegmentation.from_pretrained(tiny_folder)
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, copy / "model.safetensors")
    return copy


@pytest.fixture
def edit(folder: Path) -> Callable[..., Path]:
    """Rewrites the tensors of `folder` through a function of name -> tensor dict."""

    def apply(change: Callable[[dict], dict]) -> Path:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
        return folder

    return apply


def images(*size: int) -> torch.Tensor:
    size = size or (64, 64)
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def same_logits(a: nn.Module, b: nn.Module) -> bool:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x, y = a.eval()(pixels).logits, b.eval()(pixels).logits
    return x.shape == y.shape and bool((x - y).abs().max() <= 1e-5 * y.abs().max())


# architectures


@pytest.mark.parametrize(
    # the paper's table 6 counts 3.8, 13.7, 27.5, 47.3, 64.1 and 84.7 M with 150 classes
    ("name", "millions"),
    [("b0", 3.71), ("b1", 13.68), ("b2", 27.35), ("b3", 47.22), ("b4", 63.99), ("b5", 84.59)],
)
def test_parameter_counts(name: str, millions: float) -> None:
    depths, widths, decoder = ARCHITECTURES[name]
    config = {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder}
    with torch.device("meta"):  # counting needs no memory
        network = SegFormer.from_config(config, ["background", "nail"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


@pytest.fixture(scope="module")
def b0() -> SegFormer:
    torch.manual_seed(0)
    return SegFormer("b0")


def test_b0_from_scratch(b0: SegFormer) -> None:
    assert b0.class_names == ["background", "nail"]
    assert b0.new_head
    assert b0.training
    assert b0.hf.training
    assert b0.origin["licence"] == "random initialisation, no licence attached"
    assert b0.hf.config._attn_implementation == "sdpa"
    rates = [
        b.drop_path.drop_prob
        for s in b0.hf.segformer.stages
        for b in s.blocks
        if hasattr(b.drop_path, "drop_prob")
    ]
    assert rates == pytest.approx([0.1 * i / 7 for i in range(1, 8)])


def test_paper_initialisation(b0: SegFormer) -> None:
    for name, part in b0.hf.segformer.named_modules():
        if isinstance(part, nn.Conv2d):
            std = (2 / (part.kernel_size[0] ** 2 * part.out_channels / part.groups)) ** 0.5
        elif isinstance(part, nn.Linear):
            std = 0.02
        elif isinstance(part, nn.LayerNorm):
            assert part.weight.eq(1).all(), name
            assert part.bias.eq(0).all(), name
            continue
        else:
            continue
        assert part.weight.std().item() == pytest.approx(std, rel=0.1), name
        assert part.bias.eq(0).all(), name
    assert b0.hf.decode_head.linear_fuse.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    assert b0.hf.decode_head.classifier.weight.abs().max() <= 256**-0.5


# forward


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40)], ids=str)
def test_any_size(tiny_folder: Path, size: tuple[int, int]) -> None:
    network = SegFormer(str(tiny_folder))
    logits = network(images(*size))
    assert logits.shape == (2, 2, *size)
    assert logits.dtype == torch.float32


def test_normalises_inside(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder)).eval()
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        small = stock(pixels).logits
        expected = nn.functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)
        for image in (images(), images().float(), images().double()):
            assert (network(image) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not any("mean" in name.split(".")[-1] and "running" not in name for name in network.state_dict())
    assert set(network.hf.state_dict()) == set(stock.state_dict())


def test_mean_and_std_of_the_folder(folder: Path) -> None:
    preprocessor = {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    network = SegFormer(str(folder))
    assert network.mean.flatten().tolist() == [0.5, 0.25, 0.5]
    assert network.std.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_std": [1, 0, 1]}))
    with pytest.raises(WeightsError, match="three positive standard deviations, found"):
        SegFormer(str(folder))


def test_trains_after_inference_mode(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder)).eval()
    with torch.inference_mode():
        network(images())
    network.train()(images()).mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_compiles(tiny_folder: Path) -> None:
    """Traced whole, without a graph break; the code generator is left to torch's own tests."""
    network = SegFormer(str(tiny_folder)).eval()
    with torch.no_grad():
        expected = network(images())  # transformers hooks itself in at the first call, which cannot be traced
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images()), expected)


def test_exports_with_free_sizes(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder)).eval()
    auto = torch.export.Dim.AUTO
    program = torch.export.export(network, (images(64, 96),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    image = images(65, 97)[:1].repeat(3, 1, 1, 1)
    with torch.no_grad():
        assert (program.module()(image) - network(image)).abs().max() < 1e-5


# loading


@needs_legacy
def test_legacy_reference_logits() -> None:
    network = SegFormer(str(LEGACY / "segformer-tiny-ade")).eval()
    assert len(network.class_names) == 150
    assert not network.new_head
    reference = np.load(LEGACY / "segformer-tiny-ade" / "reference.npz")
    for index in range(2):
        expected = torch.from_numpy(reference[f"logits_{index}"])
        with torch.no_grad():
            found = network.hf(pixel_values=torch.from_numpy(reference[f"pixel_values_{index}"])).logits
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@needs_legacy
def test_legacy_encoder() -> None:
    network = SegFormer(str(LEGACY / "mit-tiny"))
    assert network.class_names == ["background", "nail"]
    assert network.new_head
    stored = load_file(LEGACY / "mit-tiny" / "model.safetensors")
    loaded = {old_name(name): tensor for name, tensor in network.hf.state_dict().items()}
    encoder = {name for name in stored if name.startswith("segformer.")}
    assert len(encoder) > 100
    assert all(torch.equal(loaded[name], stored[name]) for name in encoder)


def test_old_and_new_names(tiny_folder: Path, folder: Path, edit: Callable) -> None:
    """The tiny folder under the old names and under the new ones: the same logits as plain transformers."""
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder)
    assert any("segformer.stages.0" in name for name in load_file(folder / "model.safetensors"))
    assert same_logits(SegFormer(str(folder)).hf, stock)
    edit(lambda tensors: {old_name(name): tensor for name, tensor in tensors.items()})
    names = set(load_file(folder / "model.safetensors"))
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in names
    assert not any("stages" in name or "linear_projections" in name for name in names)
    assert same_logits(SegFormer(str(folder)).hf, stock)


def test_pytorch_bin(tiny_folder: Path, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({old_name(name): tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    stock = SegformerForSemanticSegmentation.from_pretrained(tiny_folder)
    assert same_logits(SegFormer(str(folder)).hf, stock)


def test_new_classes_change_the_classifier_alone(tiny_folder: Path) -> None:
    before = SegFormer(str(tiny_folder)).hf.state_dict()
    network = SegFormer(str(tiny_folder), ["background", "thumb", "finger"])
    assert network.new_head
    assert network.class_names == ["background", "thumb", "finger"]
    assert network.hf.config.label2id == {"background": 0, "thumb": 1, "finger": 2}
    changed = {
        name
        for name, tensor in network.hf.state_dict().items()
        if tensor.shape != before[name].shape or not torch.equal(tensor, before[name])
    }
    assert changed == {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert network.hf.decode_head.classifier.weight.abs().max() <= 16**-0.5


def test_the_same_classes_keep_the_classifier(tiny_folder: Path) -> None:
    assert not SegFormer(str(tiny_folder), ["background", "nail"]).new_head
    assert SegFormer(str(tiny_folder), ["background", "toenail"]).new_head


def test_names_for_unnamed_outputs(folder: Path) -> None:
    edit_config(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    assert SegFormer(str(folder)).class_names == ["LABEL_0", "LABEL_1"]
    network = SegFormer(str(folder), ["background", "nail"])
    assert network.class_names == ["background", "nail"]
    assert not network.new_head


@pytest.mark.parametrize("kind", [SegformerForImageClassification, SegformerModel])
def test_encoder_folders(tiny_folder: Path, tmp_path: Path, kind: type) -> None:
    config = kind.config_class.from_pretrained(tiny_folder)
    encoder = kind(config)
    encoder.save_pretrained(tmp_path)
    network = SegFormer(str(tmp_path))
    assert network.new_head
    assert network.class_names == ["background", "nail"]
    expected = getattr(encoder, "segformer", encoder).state_dict()
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in network.hf.segformer.state_dict().items()
    )
    # the head has the paper's initialisation, not transformers'
    assert network.hf.decode_head.linear_fuse.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.1)


def test_half_precision_loads_as_float32(tiny_folder: Path, tmp_path: Path) -> None:
    SegformerForSemanticSegmentation.from_pretrained(tiny_folder).half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    network = SegFormer(str(tmp_path))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    network.hf.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == "float32"


def test_saves_for_plain_transformers(tiny_folder: Path, tmp_path: Path) -> None:
    network = SegFormer(str(tiny_folder), ["background", "thumb", "finger"])
    network(images()).mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.sub_(0.1 * parameter.grad)
    network.hf.save_pretrained(tmp_path)
    stock, info = SegformerForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert same_logits(network.hf, stock)
    assert same_logits(SegFormer(str(tmp_path)).hf, stock)


def test_from_config(tiny_folder: Path) -> None:
    network = SegFormer(str(tiny_folder))
    again = SegFormer.from_config(network.hf.config.to_dict(), network.class_names, origin=network.origin)
    again.load_state_dict(network.state_dict())
    assert again.origin == network.origin
    assert same_logits(again.hf, network.hf)


def test_config_s_head_is_respected(folder: Path) -> None:
    edit_config(
        folder, classifier_dropout_prob=0.4, drop_path_rate=0.9, quantization_config={"load_in_8bit": True}
    )
    config = SegFormer(str(folder), drop_path=0.2).hf.config
    assert config.classifier_dropout_prob == 0.4
    assert config.drop_path_rate == 0.2  # the argument's
    assert not hasattr(config, "quantization_config")


def test_loading_is_quiet(tiny_folder: Path, capfd: pytest.CaptureFixture) -> None:
    SegFormer(str(tiny_folder), ["background", "thumb", "finger"])
    assert "".join(capfd.readouterr()) == ""


# faults of a folder


def without(part: str) -> Callable[[dict], dict]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize("classes", [None, ["a", "b", "c"]])
@pytest.mark.parametrize(
    "part", ["decode_head.linear_fuse", "decode_head.linear_projections.3", "stages.2.blocks"]
)
def test_missing_keys(edit: Callable, part: str, classes: list[str] | None) -> None:
    folder = edit(without(part))
    with pytest.raises(WeightsError, match=rf"missing: .*{part}"):
        SegFormer(str(folder), classes)


def test_a_missing_classifier_is_a_fault_unless_it_is_new(edit: Callable) -> None:
    folder = edit(without("classifier"))
    with pytest.raises(
        WeightsError, match=r"missing: decode_head.classifier.bias, decode_head.classifier.weight"
    ):
        SegFormer(str(folder))
    assert SegFormer(str(folder), ["a", "b", "c"]).new_head


def test_unexpected_keys(edit: Callable) -> None:
    folder = edit(lambda tensors: tensors | {"segformer.stages.0.extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"unexpected: segformer.stages.0.extra"):
        SegFormer(str(folder))


def test_an_image_classifier_beside_a_decode_head_is_unexpected(edit: Callable) -> None:
    folder = edit(lambda tensors: tensors | {"classifier.weight": torch.zeros(2, 32)})
    with pytest.raises(WeightsError, match=r"unexpected: classifier.weight"):
        SegFormer(str(folder), ["a", "b", "c"])


def test_sizes_that_do_not_fit(folder: Path) -> None:
    edit_config(folder, decoder_hidden_size=24)
    with pytest.raises(WeightsError, match=r"of another size: .*decode_head.linear_fuse.weight"):
        SegFormer(str(folder))


def test_broken_files(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model.safetensors: cannot be read as weights"):
        SegFormer(str(folder))
    path.unlink()
    with pytest.raises(WeightsError, match=r"expected model.safetensors or pytorch_model.bin, found neither"):
        SegFormer(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config.json: expected JSON"):
        SegFormer(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"found no config.json"):
        SegFormer(str(folder))


class _Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("hostile-was-here"),))


def test_a_pickle_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"segformer": _Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model.bin: cannot be read as weights"):
        SegFormer(str(folder))
    assert not (folder / "hostile-was-here").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "expected model_type 'segformer', found 'bert'"),
        ({"num_channels": 4}, "expected 3 channels, found 4"),
        ({"depths": "many"}, "the network's config"),
        ({"depths": [1, 1]}, "no network can be built"),
        ({"id2label": {"0": "a", "7": "b"}}, "expected id2label to name classes 0, 1, 2"),
        ({"id2label": {"0": "nail"}}, "expected at least two classes"),
    ],
)
def test_configs_that_cannot_be(folder: Path, change: dict, message: str) -> None:
    edit_config(folder, **change)
    with pytest.raises(WeightsError, match=message):
        SegFormer(str(folder))


@pytest.mark.parametrize("classes", [[], ["nail"], ["nail", "nail"], "nail"])
def test_class_names_that_cannot_be(tiny_folder: Path, classes: object) -> None:
    for weights in ("b0", str(tiny_folder)):
        with pytest.raises(ConfigError, match=r"class names: expected .* Give for example"):
            SegFormer(weights, classes)


@pytest.mark.parametrize("weights", ["b7", "./nothing/here", "runs/demo/model", "a b/c", "../x"])
def test_no_such_weights(weights: str) -> None:
    with pytest.raises(WeightsError, match="expected a folder, a hub name such as"):
        SegFormer(weights)


# hub, cache, licence


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and a hub that refuses every connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


def fill(cache: Path, name: str, folder: Path) -> None:
    """As the hub's client lays it out, under the hub's real name."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def test_cache_under_the_real_names(
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
    """Serves one folder as the hub serves a model: its description, its listing and its files."""

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
    """From the hub to the cache: the description and one file of weights, then never the network again."""
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
    message = r"hub cannot be reached .*Without network: download .* filled cache .* 'b0'"
    with pytest.raises(WeightsError, match=message):
        SegFormer("nvidia/mit-b0")


def test_a_network_that_swallows_everything(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_half_a_download_is_no_cache(cache: Path, folder: Path) -> None:
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
