"""Exported files as models: ONNX Runtime and OpenVINO, without torch or transformers in the process.

An export is a folder with `model.onnx`, or with `model.xml`, `model.bin` and `nailseg.json`. Its graph takes
images as they are (uint8 (N, 3, H, W), RGB, any size) and holds everything that follows: resizing,
normalisation, the network, enlarging and softmax.
"""

from __future__ import annotations

import collections
import json
import math
import os
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nailseg.errors import ConfigError, WeightsError
from nailseg.model_info import INFO_FILE, ONNX_FILE, OPENVINO_FILE, ModelInfo

if TYPE_CHECKING:
    from types import ModuleType

METADATA_KEY = "nailseg"
"""Under this name the content of nailseg.json lies in the file's own metadata, as JSON."""

HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16"}
"""What OpenVINO computes in; fp16 is how the weights are stored."""

OFTEN, MOST_SIZES, MOST_SEEN = 3, 4, 1000
"""At which image of one size OpenVINO gets a graph for that size, for how many sizes at most, and of how
many sizes it is counted how often they came."""

ONE_SIZE_PIXELS = 1_000_000
"""Up to so many pixels in a batch: of larger ones a graph of their own was no faster, or slower."""


def runtime(name: str) -> ModuleType:
    """A module of the export extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"exported models need {name}, which cannot be imported ({error}). Run: "
            f"pip install 'nailseg[export]'"
        ) from error


def exported_file(source: str | Path) -> Path | None:
    """The graph's file of an export: given itself, or by its folder; None for every other kind of model."""
    path = Path(source)
    if path.suffix in (".onnx", ".xml"):
        return path
    if (path / "config.json").is_file():  # transformers' own folders on the hub may have an ONNX file beside
        return None
    return next((path / name for name in (ONNX_FILE, OPENVINO_FILE) if (path / name).is_file()), None)


def open_exported(file: Path, device: str | None = None, threads: int | None = None) -> _Graph:
    """Opens an export for prediction; a `predictor.Backend`.

    Args:
        file: from `exported_file`.
        device: None or "cpu".
        threads: of the runtime; None takes OMP_NUM_THREADS, and the runtime's own choice without it.

    Raises:
        WeightsError: not found, damaged, or exported by something else.
        ConfigError: the runtime is not installed, or another device.
    """
    if device not in (None, "cpu"):
        raise ConfigError(
            f"--device {device}: expected cpu for the exported model {file}. The model folder runs on a GPU."
        )
    if not file.is_file():
        raise WeightsError(f"{file}: expected an exported model, found nothing. nailseg export writes them.")
    wished = os.environ.get("OMP_NUM_THREADS", "")
    if threads is None and wished.isdecimal() and int(wished):
        threads = int(wished)
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads: expected a number from 1 on, found {threads}.")
    return (OnnxBackend if file.suffix == ".onnx" else OpenVinoBackend)(file, threads)


def _in_a_line(error: Exception) -> str:
    """The last line, where these runtimes say what is the matter."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


class _Graph:
    """What both runtimes share: the order of axes, and what the file says of itself."""

    def __init__(self, file: Path, facts: str | None) -> None:
        try:
            self.info = ModelInfo.from_dict(json.loads(facts or ""))
        except (ValueError, TypeError, AttributeError) as error:
            place, form = ("its metadata", "onnx") if file.suffix == ".onnx" else (INFO_FILE, "openvino")
            raise WeightsError(
                f"{file}: expected an export of nailseg with class names in {place}, found none. "
                f"Run: nailseg export MODEL --format {form}"
            ) from error
        self.file = file

    def __call__(self, images: np.ndarray, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `predictor.Backend`; from any number of threads at once.

        Raises:
            ConfigError: another size than the one that lies in the graph.
        """
        if size not in (None, self.info.image_size):
            raise ConfigError(
                f"expected the size {self.info.image_size}, which is fixed in {self.file}, found {size}. "
                f"Use the model folder for other sizes."
            )
        return self._run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, 3, H, W) to mask uint8 (N, H, W) and probability float32 (N, C, H, W)."""
        raise NotImplementedError


class OnnxBackend(_Graph):
    """Runs `model.onnx` in ONNX Runtime, whose sessions may be shared by threads."""

    def __init__(self, file: Path, threads: int | None = None) -> None:
        ort = runtime("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # its warnings are about the graph, nothing that users could mend
        try:
            self.session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own exceptions have no common public base
            raise WeightsError(f"{file}: cannot be opened as an ONNX model ({_in_a_line(error)}).") from error
        super().__init__(file, self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask, probability = self.session.run(["mask", "probability"], {"image": images})
        return mask, probability


class OpenVinoBackend(_Graph):
    """Runs `model.xml` in OpenVINO; each thread has its own requests.

    A graph whose sizes are known is faster than one that takes any (nailseg-b0, images of 432 x 432: 1.2
    times in float32, 1.3 times in bfloat16), for half a second to prepare it. So sizes that keep coming get a
    graph of their own. Of six megapixels it is slower.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        self.core = runtime("openvino").Core()
        facts = file.parent / INFO_FILE
        super().__init__(file, facts.read_text() if facts.is_file() else None)
        precision = json.loads(facts.read_text()).get("precision", "fp32")
        # without a hint the plugin computes in bfloat16 wherever the processor can, and nobody measured that
        self.hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32")}
        if threads:
            self.hints["INFERENCE_NUM_THREADS"] = threads
        try:
            self.graph = self.core.read_model(file)
            self.any_size = self.core.compile_model(self.graph, "CPU", self.hints)
        except RuntimeError as error:
            raise WeightsError(
                f"{file}: cannot be opened as an OpenVINO model ({_in_a_line(error)})."
            ) from error
        self.seen: collections.Counter[tuple[int, ...]] = collections.Counter()
        self.one_size: dict[tuple[int, ...], Any] = {}
        self.lock = threading.Lock()
        self.own = threading.local()

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        model = self._model_for(images.shape)
        requests = self.own.__dict__.setdefault("requests", {})
        if model not in requests:
            requests[model] = model.create_infer_request()
        found = requests[model].infer({"image": images})
        return found["mask"], found["probability"]

    def _model_for(self, shape: tuple[int, ...]) -> Any:
        with self.lock:
            if len(self.seen) > MOST_SEEN:  # sizes that never come again
                self.seen.clear()
            self.seen[shape] += 1
            due = self.seen[shape] == OFTEN and shape not in self.one_size
            due = due and len(self.one_size) < MOST_SIZES and math.prod(shape) <= 3 * ONE_SIZE_PIXELS
        if due:  # without the lock: the other threads go on with the graph for any size
            graph = self.graph.clone()
            graph.reshape(shape)
            self.one_size[shape] = self.core.compile_model(graph, "CPU", self.hints)
        return self.one_size.get(shape, self.any_size)
