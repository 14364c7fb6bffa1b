"""Model files of others with wrong, huge or hostile content: one message and exit code 1 in every command."""

import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from nailseg.checkpoints import model_folder
from nailseg.cli.main import main
from nailseg.errors import WeightsError
from nailseg.inference.segmenter import load
from nailseg.models.pretrained import load_plain

INFO_FIELDS = [
    ("image_size", -5),
    ("image_size", 10**9),
    ("image_size", "64"),
    ("image_size", [64, 64, 64]),
    ("image_size", True),
    ("resize", "foo"),
    ("overlap", 1.5),
    ("mean", [0.5, 0.5]),
    ("std", [0.0, 0.2, 0.2]),
    ("std", ["a", 0.2, 0.2]),
    ("class_names", ["background", "nail", "ring"]),
    ("class_names", ["nail", "nail"]),
    ("class_names", "background"),
    ("class_names", None),
    ("threshold", 7),
    ("threshold", "high"),
    ("image_range", [9, 3]),
    ("image_range", [0, 1, 2]),
    ("origin", ["a"]),
    ("metrics", []),
    ("architecture", 5),
    ("architecture", "resnet"),
]
CONFIG_FIELDS = [
    ("depths", [100_000_000] * 4),
    ("depths", [1, 1, 1]),
    ("depths", {"a": 1}),
    ("hidden_sizes", [8, 16, 24, 2**30]),
    ("hidden_sizes", [8, 16, 24, 33]),
    ("strides", [4, 2, 2, 0]),
    ("strides", [4, 2, 2, -2]),
    ("patch_sizes", [7, 3, 3, 1e9]),
    ("sr_ratios", [0, 4, 2, 1]),
    ("num_attention_heads", [1, 2, 3, 0]),
    ("mlp_ratios", [4, 4, 4, -4]),
    ("num_encoder_blocks", 10**7),
    ("decoder_hidden_size", -1),
    ("hidden_act", "no_such"),
    ("hidden_act", 3),
    ("layer_norm_eps", "small"),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "hand.png"), np.zeros((48, 64, 3), np.uint8))
    return tmp_path / "hand.png"


def edit(file: Path, field: str, value: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {field: value}))


def refuses(args: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """The command exits with 1 and one message that holds the words."""
    capsys.readouterr()
    assert main(args) == 1, args
    output = "".join(capsys.readouterr())
    assert "Traceback" not in output
    assert "weights_only" not in output
    assert all(word in output for word in words), (words, output)


def copy_with(model: Path, target: Path, file: str, field: str, value: Any) -> Path:
    shutil.copytree(model, target)
    edit(target / file, field, value)
    return target


@pytest.mark.parametrize(("field", "value"), INFO_FIELDS)
def test_fields_of_nailseg_json(mixed_model, image, tmp_path, capsys, field, value) -> None:
    model = copy_with(mixed_model, tmp_path / "model", "nailseg.json", field, value)
    word = "class" if field == "class_names" else "--model.name" if value == "resnet" else field
    refuses(["predict", str(image), "--out", str(tmp_path / "out"), "--model", str(model)], capsys, word)
    refuses(["export", str(model), "--format", "onnx", "--out", str(tmp_path / "export")], capsys, word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("field", "value"), CONFIG_FIELDS)
def test_fields_of_config_json(mixed_model, image, tmp_path, capsys, field, value) -> None:
    model = copy_with(mixed_model, tmp_path / "model", "config.json", field, value)
    refuses(
        ["predict", str(image), "--out", str(tmp_path / "out"), "--model", str(model)], capsys, "config.json"
    )


@pytest.mark.parametrize("command", ["serve", "tryon", "bench", "test", "fit", "convert"])
@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("nailseg.json", "image_size", -5),
        ("nailseg.json", "std", [0.0, 0.2, 0.2]),
        ("config.json", "depths", [100_000_000] * 4),
        ("config.json", "strides", [4, 2, 2, 0]),
        ("model.safetensors", "", b"no tensors"),
        ("model.safetensors", "", b""),
    ],
)
def test_every_command_that_opens_a_model(
    mixed_model, drawn, image, tmp_path, capsys, command, file, field, value
) -> None:
    model = tmp_path / "model"
    if field:
        copy_with(mixed_model, model, file, field, value)
    else:
        shutil.copytree(mixed_model, model)
        (model / file).write_bytes(value)
    data = [f"--data.csv={drawn / 'data.csv'}", "--data.workers=0", f"--runs={tmp_path / 'runs'}"]
    options = {
        "serve": ["--model", str(model), "--port", "0"],
        "tryon": [str(image), "--out", str(tmp_path / "out"), "--color", "red", "--model", str(model)],
        "bench": [str(model)],
        "test": [f"--model.weights={model}", *data],
        "fit": [f"--model.weights={model}", *data, "--trainer.max_epochs=1"],
        "convert": [str(model / file), str(tmp_path / "out")],
    }
    refuses([command, *options[command]], capsys)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        *(("info", *pair) for pair in INFO_FIELDS[:12]),
        *(("config", *pair) for pair in CONFIG_FIELDS),
        ("", "nailseg", 5),
        ("", "nailseg", {"config": {}, "info": 3}),
        ("", "state_dict", None),
        ("", "state_dict", {"network.hf": "text"}),
    ],
)
def test_fields_of_checkpoints(mixed_model, image, tmp_path, capsys, part, field, value) -> None:
    network, info = model_folder.open_network(mixed_model), model_folder.read_model_info(mixed_model)
    description = model_folder.checkpoint_metadata(network, info)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    content = {"nailseg": description, "state_dict": state}
    (content["nailseg"][part] if part else content)[field] = value
    path = tmp_path / "best.ckpt"
    torch.save(content, path)
    refuses(["predict", str(image), "--out", str(tmp_path / "out"), "--model", str(path)], capsys, str(path))


def test_a_kernel_of_the_hub_is_refused(tmp_path: Path, capsys, image: Path) -> None:
    content = {"model_type": "upernet", "attn_implementation": "evil/kernel"}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(content))
    torch.save({"a": torch.zeros(1)}, tmp_path / "m" / "pytorch_model.bin")
    refuses(["predict", str(image), "--out", "o", "--model", str(tmp_path / "m")], capsys, "evil/kernel")


class _Runs:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("true",)


def test_files_that_are_no_tensors(tmp_path: Path) -> None:
    """torch's own text advises to load them without protection: it must not reach anyone."""
    path = tmp_path / "a.ckpt"
    for write in (
        lambda: torch.save({"a": _Runs()}, path),
        lambda: path.write_bytes(pickle.dumps({"a": _Runs()})),
        lambda: path.write_bytes(b"not a pickle"),
        lambda: path.write_bytes(b""),
    ):
        write()
        with pytest.raises(WeightsError, match=r"expected a file with tensors.*again\.$") as caught:
            load_plain(path)
        assert "weights_only" not in str(caught.value)


def test_zip_bomb(tmp_path: Path) -> None:
    path, plain = tmp_path / "bomb.ckpt", tmp_path / "plain.ckpt"
    torch.save({"a": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < plain.stat().st_size / 10
    with pytest.raises(WeightsError, match="compressed"):
        load_plain(path)
    assert load_plain(plain)["a"].shape == (100_000,)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "loop"])
def test_files_that_are_no_files(tmp_path: Path, capsys, monkeypatch, mixed_model, kind: str) -> None:
    """To open a pipe would wait for its writer for ever."""
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    special = Path("special.png")
    if kind == "pipe":
        os.mkfifo(special)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(special))
    elif kind == "device":
        special.symlink_to("/dev/zero")
    else:
        special.symlink_to(special)
    Path("a.csv").write_text(f"image,mask,split\n{special.name},{special.name},val\n")
    model = ["--model", str(mixed_model)]
    refuses(["predict", "special.png", "--out", "o", *model], capsys, "special.png")
    refuses(["predict", "a.csv", "--out", "o2", *model], capsys, "special.png")
    refuses(["check", "a.csv"], capsys, "special.png")
    refuses(["check", "special.png"], capsys, "special.png")
    refuses(["predict", "special.png", "--out", "o3", "--model", "special.png"], capsys, "special.png")
    refuses(["fit", "--config", "special.png"], capsys, "special.png")


def test_null_character_in_a_path(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.csv").write_text("image,mask,split\na\0b.png,m.png,val\n")
    refuses(["check", str(tmp_path / "a.csv")], capsys, "null character")
    (tmp_path / "c.yaml").write_text('data: {csv: "a\\0b.csv"}\n')
    refuses(["fit", "--config", str(tmp_path / "c.yaml")], capsys, "null")


def test_a_network_of_nan_is_refused(mixed_model, image: Path, tmp_path: Path, capsys) -> None:
    network, info = model_folder.open_network(mixed_model), model_folder.read_model_info(mixed_model)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    content = {"nailseg": model_folder.checkpoint_metadata(network, info), "state_dict": state}
    path = tmp_path / "nan.ckpt"
    torch.save(content, path)
    out = tmp_path / "out"
    refuses(["predict", str(image), "--out", str(out), "--model", str(path)], capsys, "found nan")
    refuses(
        ["tryon", str(image), "--color", "red", "--out", "t.png", "--model", str(path)], capsys, "found nan"
    )
    assert not list(out.glob("**/*.png"))
    with pytest.raises(WeightsError, match="nan"):
        load(path).batch([np.zeros((32, 32, 3), np.uint8)])
