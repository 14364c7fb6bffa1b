"""Properties over generated input: every file is read, or refused with one of our errors, within a second."""

import contextlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import nailseg
from nailseg.data.io.images import decode_image
from nailseg.data.manifest import load_manifest
from nailseg.errors import ConfigError, DataError, NailsegError, WeightsError
from nailseg.model_info import parse_info
from nailseg.models.registry import build_network
from nailseg.models.segformer import SegFormer
from nailseg.schema import read_yaml

COMMON = settings(
    max_examples=60,
    deadline=None,  # the machine may be busy
    derandomize=True,  # a failure is the same for everyone
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SIDES = st.integers(1, 80) | st.integers(1, 1000)
SIZES = st.sampled_from([(1, 1), (1, 2), (3000, 17), (17, 3000), (5, 700)]) | st.tuples(SIDES, SIDES)


@pytest.fixture(scope="module")
def segment(mixed_model: Path) -> Any:
    return nailseg.load(mixed_model, device="cpu")


@COMMON
@given(
    size=SIZES,
    channels=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    suffix=st.sampled_from([".png", ".tif", ".jpg", ".webp", ".bmp"]),
    seed=st.integers(0, 3),
)
def test_masks_have_the_images_size(segment, size, channels, dtype, suffix, seed) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype)
    if suffix in (".jpg", ".webp", ".bmp"):
        pixels = pixels.astype(np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    try:
        result = segment(data)
    except DataError:
        return
    assert result.mask.shape == size
    assert set(np.unique(result.mask)) <= {0, 1}
    np.testing.assert_allclose(result.probability.sum(0), 1, atol=1e-4)
    if channels == 3 and suffix in (".png", ".tif", ".bmp") and dtype == np.uint8:
        assert np.array_equal(result.image, pixels[..., ::-1]), "OpenCV's order is BGR"


@COMMON
@given(
    kept=st.floats(0, 1),
    position=st.floats(0, 1),
    value=st.integers(0, 255),
    suffix=st.sampled_from([".png", ".jpg", ".tif"]),
)
def test_damaged_images_are_refused_or_read(kept, position, value, suffix) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    data = bytearray(cv2.imencode(suffix, pixels)[1].tobytes())
    data[int(position * (len(data) - 1))] = value
    data = data[: max(1, int(kept * len(data)))]
    with contextlib.suppress(NailsegError):
        assert decode_image(bytes(data), "a").pixels.dtype == np.uint8


@COMMON
@given(content=st.text(max_size=200) | st.binary(max_size=200))
@example(content="image,mask,split\r\n\ta.png ; ,b.png,VAL\r\n")
@example(content='image;mask\n"a,b.png;c.png')
@example(content="\ufeffImage,Mask,Split,Split\na,b,c,d")
def test_csv_files_are_read_or_refused(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    with contextlib.suppress(DataError):
        assert load_manifest(path).rows


@COMMON
@given(
    rows=st.lists(
        st.tuples(st.text(max_size=12), st.text(max_size=12), st.sampled_from(["train", "val", "x"]))
    ),
    delimiter=st.sampled_from(",;\t"),
)
def test_rows_keep_their_paths_inside_the_root(tmp_path: Path, rows: list, delimiter: str) -> None:
    path = tmp_path / "b.csv"
    lines = [("image", "mask", "split"), *rows]
    text = "\n".join(delimiter.join(line) for line in lines)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(DataError):
        for row in load_manifest(path, strict=False).rows:
            assert (tmp_path / row.image).resolve().is_relative_to(tmp_path.resolve())


@COMMON
@given(field=st.sampled_from(sorted(nailseg.model_info.ModelInfo.__dataclass_fields__)), value=JSON)
def test_fields_of_models_are_valid_or_refused(field: str, value: Any) -> None:
    content = {"class_names": ["background", "nail"], "mean": [0.5] * 3, "std": [0.2] * 3, field: value}
    with contextlib.suppress(WeightsError):
        info = parse_info(json.dumps(content), "here")
        assert 1 <= info.longest_side <= 8192
        assert all(deviation > 0 for deviation in info.std)
        assert info.threshold is None or 0 <= info.threshold <= 1


@COMMON
@given(content=st.binary(max_size=300) | st.text(max_size=300) | JSON.map(json.dumps))
def test_configs_are_options_or_refused(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml(path), dict)


@COMMON
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_descriptions_of_models_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(WeightsError):
        assert parse_info(content, "here").class_names


NUMBERS = st.integers(-3, 70) | st.floats(-2, 8) | st.sampled_from([2**31, 1e30])
CONFIG_VALUES = JSON | NUMBERS | st.lists(NUMBERS, min_size=3, max_size=5)
CONFIG = json.loads(
    """{"model_type": "segformer", "num_encoder_blocks": 4, "depths": [1, 1, 1, 1], "sr_ratios": [8, 4, 2, 1],
    "hidden_sizes": [8, 16, 24, 32], "patch_sizes": [7, 3, 3, 3], "strides": [4, 2, 2, 2],
    "num_attention_heads": [1, 2, 3, 4], "mlp_ratios": [4, 4, 4, 4], "hidden_act": "gelu",
    "decoder_hidden_size": 16, "id2label": {"0": "background", "1": "nail"}, "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0, "num_channels": 3, "reshape_last_stage": true}"""
)


@settings(COMMON, max_examples=150)
@given(changes=st.dictionaries(st.sampled_from(sorted(CONFIG)), CONFIG_VALUES, min_size=1, max_size=2))
def test_configs_of_networks_are_built_or_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A changed config.json beside weights of the original one: it fits, or meets one error."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    weights = tmp_path / "model.safetensors"
    if not weights.exists():
        tensors = SegFormer.from_config(CONFIG, ["background", "nail"]).hf.state_dict()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights)
    with contextlib.suppress(WeightsError, ConfigError):
        network = build_network(str(tmp_path)).eval()
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, 64, 64)).shape == (1, len(network.class_names), 64, 64)
